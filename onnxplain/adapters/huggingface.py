"""transformers' `image-classification` pipeline, of an explain graph in place of a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from transformers.image_utils import load_image

from onnxplain.adapters.network import Graph, check_classifier, opened
from onnxplain.contract.explain import IMAGE, LOGITS, PULLBACK
from onnxplain.contract.picture import OVERLAY, PictureOptions
from onnxplain.errors import InputError
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import explanation_of
from onnxplain.runtime.inputs.pixels import as_input
from onnxplain.runtime.pictures.figures import draw

PICTURE = "explanation"
"""What the answers have besides `label`, `score` and the pullback, an array [C,H,W]: a PIL image.
"""


class ImageExplanationPipeline(transformers.ImageClassificationPipeline):  # type: ignore[misc]
    """`transformers.pipeline("image-classification")`, whose likeliest answers are explained.

    It takes what that takes (paths, addresses, PIL images, one or many, a generator, `batch_size`,
    `top_k`, `function_to_apply`, `timeout`) and answers alike: for each image a list of
    `{"label", "score"}`, the likeliest first. The first `explained` of them have besides
    `"pullback"`, an array [C,H,W], and `"explanation"`, a picture.

    Args:
        graph: of a classifier.
        explained: how many of the answers are explained, unless a call says otherwise.
        style: of the pictures, one of `onnxplain.contract.picture.STYLES` but for the grid.
        options: of transformers' pipeline: `batch_size`, `num_workers`, `top_k`,
            `function_to_apply`, `timeout`.

    Raises:
        InputError: the file explains something else, or takes photographs.
        BackendError: as `onnxplain.load`.
    """

    _load_image_processor = False  # the file has the preprocessing

    def __init__(
        self, graph: Graph, *, explained: int = 1, style: str = OVERLAY, **options: Any
    ) -> None:
        explainer = opened(graph)
        check_classifier(explainer.metadata, explainer.multi_target)
        if explainer.metadata.pixels:
            raise InputError("this file takes photographs: export it without preprocess=True")
        self.explainer = explainer
        super().__init__(
            model=_Model(explainer),
            image_processor=_Processor(explainer),
            task="image-classification",
            device=-1,
            explained=explained,
            style=style,
            **options,
        )

    def check_model_type(self, supported_models: Any) -> None:
        """A file is none of transformers' own."""

    def _sanitize_parameters(
        self, explained: int | None = None, style: str | None = None, **given: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before, forward, after = super()._sanitize_parameters(**given)
        if explained is not None:
            classes = self.explainer.backend.signature.classes
            if not 0 <= explained <= classes:
                raise InputError(f"explained is from 0 to {classes} answers, not {explained}")
            forward["explained"] = explained
        if style is not None:
            PictureOptions(style=style).check()
            after["style"] = style
        return before, forward, after

    def preprocess(self, image: Any, timeout: float | None = None) -> dict[str, torch.Tensor]:
        made: dict[str, torch.Tensor] = self.image_processor(load_image(image, timeout=timeout))
        return made

    def _forward(
        self, model_inputs: dict[str, torch.Tensor], explained: int = 1
    ) -> dict[str, torch.Tensor]:
        batch = model_inputs[IMAGE].numpy()
        ranks = -1 - np.arange(max(explained, 1))
        targets = np.tile(ranks, len(batch))
        outputs = self.explainer.answer(batch.repeat(len(ranks), axis=0), targets)
        of_each = (len(batch), len(ranks))
        found = {name: outputs[name].reshape(*of_each, *outputs[name].shape[1:]) for name in _KEPT}
        return {
            LOGITS: torch.from_numpy(found[LOGITS][:, 0]),
            PULLBACK: torch.from_numpy(found[PULLBACK][:, :explained]),
            "photograph": model_inputs["photograph"],
        }

    def postprocess(
        self, model_outputs: dict[str, torch.Tensor], style: str = OVERLAY, **given: Any
    ) -> list[dict[str, Any]]:
        answers = super().postprocess(model_outputs, **given)
        pullbacks = model_outputs[PULLBACK][0].numpy()
        for k, (answer, pullback) in enumerate(zip(answers, pullbacks, strict=False)):
            outputs = {LOGITS: model_outputs[LOGITS].numpy(), PULLBACK: pullback[None]}
            explanation = explanation_of(
                self.explainer.backend.signature,
                outputs,
                np.array([-1 - k]),
                model_outputs["photograph"].numpy(),
                {},
            )
            answer[PULLBACK] = pullback
            answer[PICTURE] = draw(explanation.rows(), PictureOptions(style=style))
        return answers


_KEPT = (LOGITS, PULLBACK)


class _Processor:
    """What makes the network's input of a picture: what the file says."""

    def __init__(self, explainer: Explainer) -> None:
        self.signature = explainer.backend.signature

    def __call__(self, image: Any) -> dict[str, torch.Tensor]:
        batch, photographs = as_input(image, self.signature)
        return {IMAGE: torch.from_numpy(batch), "photograph": torch.from_numpy(photographs)}


class _Model:
    """What a pipeline asks a model for."""

    device = torch.device("cpu")
    dtype = torch.float32
    input_modalities = ("image",)

    def __init__(self, explainer: Explainer) -> None:
        classes, labels = explainer.backend.signature.classes, explainer.labels
        sigmoid = explainer.metadata.activation == "sigmoid"
        self.config = SimpleNamespace(
            num_labels=classes,
            id2label={i: labels[i] if labels else f"LABEL_{i}" for i in range(classes)},
            problem_type="multi_label_classification" if sigmoid else "single_label_classification",
        )

    def can_generate(self) -> bool:
        return False
