"""What explain graphs and their references say of the same images and classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from onnxplain.contract.explain import IMAGE, LOGITS, PULLBACK, TARGET, Metadata
from onnxplain.contract.request import ATTENTIONS, ExportOptions, as_asked
from onnxplain.errors import InputError, SourceError
from onnxplain.files import scratch
from onnxplain.reference.estimators import by_estimator
from onnxplain.reference.float64 import evaluator, in_float64, run
from onnxplain.reference.parity import Parity
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.inputs.objective import noise_inputs
from onnxplain.runtime.inputs.targets import as_indices, resolve

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]


class Answer(NamedTuple):
    """Logits [N, classes], and the pullback of normalised NCHW images."""

    logits: Array
    pullback: Array

    def parity(self, reference: Answer) -> dict[str, Parity]:
        """How far both are from their reference: {"logits": Parity, "pullback": Parity}.

        Raises:
            InputError: the numbers of classes differ, or what is explained.
        """
        if self.logits.shape != reference.logits.shape:
            raise InputError(
                f"the graph has {self.logits.shape[1]} classes, the network "
                f"{reference.logits.shape[1]}; is it the one that the graph was exported from?"
            )
        if self.pullback.shape != reference.pullback.shape:
            raise InputError(
                f"the graph's pullback is {list(self.pullback.shape)}, the method's "
                f"{list(reference.pullback.shape)}; is the file's metadata right?"
            )
        return {
            LOGITS: Parity.of(self.logits, reference.logits),
            PULLBACK: Parity.of(self.pullback, reference.pullback),
        }


def of_graph(explainer: Explainer, images: Array, targets: Array) -> Answer:
    """An explain graph's.

    Args:
        explainer: of a graph that takes normalised float32 images, NCHW or NHWC.
        images: float32 [N, C, H, W], whatever the graph's layout.
        targets: int64 [N] or [N, K], as the graph takes them.

    Raises:
        InputError: targets of a wrong shape or out of range.
    """
    nhwc = explainer.metadata.preprocessing.layout == "NHWC"
    inputs: dict[str, Any] = noise_inputs(explainer.backend.signature, len(images))
    explanation = explainer(np.moveaxis(images, 1, -1) if nhwc else images, targets, **inputs)
    return Answer(explanation.logits, explanation.pullback)


Answering: TypeAlias = Callable[[Array, Array], Answer]
"""Answers for images [N, C, H, W] and classes ≥ 0, [N] or [N, K]."""


def graph_in_float64(path: str | os.PathLike[str], metadata: Metadata) -> Answering:
    """An explain graph's answers, evaluated in float64.

    Raises:
        Exception: of any kind, here and when asked, where the evaluator has no such operator.
    """
    nhwc = metadata.preprocessing.layout == "NHWC"
    model = in_float64(onnx.load(path))
    float64 = evaluator(model)
    inputs = {value.name for value in model.graph.input}
    constants = {name: np.array(v) for name, v in metadata.parameters.items() if name in inputs}
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1

    others = [one for one in metadata.objective.inputs.items() if one[0] != TARGET]

    def answer(images: Array, classes: Array) -> Answer:
        parts = []
        for start in range(0, len(images), size):
            given, target = (filled(part[start : start + size], size) for part in (images, classes))
            feeds = {IMAGE: np.moveaxis(given, 1, -1) if nhwc else given, TARGET: target}
            feeds |= {n: np.full((len(given), *one.shape), one.default) for n, one in others}
            parts.append(run(float64, feeds | constants, (LOGITS, PULLBACK)))
        logits, pullback = (
            np.concatenate([part[name] for part in parts])[: len(images)]
            for name in (LOGITS, PULLBACK)
        )
        return Answer(logits, np.moveaxis(pullback, -1, -3) if nhwc else pullback)

    return answer


def estimated(explainer: Explainer, ask: Callable[[Array], Answer], images: Array) -> Answer:
    """What the file's estimator makes of a method's answers; of the same noise for its inputs as
    `of_graph`.

    Args:
        ask: answers for images [N, C, H, W], of the same classes each time.

    Raises:
        InputError: the reference does not know the estimator.
        Exception: what `ask` raises.
    """
    signature, metadata = explainer.backend.signature, explainer.metadata
    pre, first = metadata.preprocessing, ask(images)
    if not metadata.estimator.name:
        return first
    inputs = {
        name: np.moveaxis(array, -1, 1) if pre.layout == "NHWC" else array
        for name, array in noise_inputs(signature, len(images)).items()
    }
    pullback = by_estimator(metadata.estimator, pre, lambda x: ask(x).pullback, images, inputs)
    return Answer(first.logits, pullback)


def of_pytorch(metadata: Metadata, module: nn.Module, images: Array, classes: Array) -> Answer:
    """The PyTorch reference's in float64, by the method and parameters that metadata name.

    Args:
        module: the network; it is copied, not changed.
        classes: int64 [N] or [N, K], none negative.

    Raises:
        InputError: the reference has no such method, or cannot use the module.
        NoRuleError: relevances have no rule for an operation of the module.
    """
    import torch

    from onnxplain.reference import pytorch

    parameters = {n: value for n, value in metadata.parameters.items() if n != ATTENTIONS}
    if "pixels" in pytorch.PARAMETERS.get(metadata.method, ()):
        pre = metadata.preprocessing
        mean, std = (
            torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (pre.mean, pre.std)
        )
        parameters["pixels"] = -mean / std, (1 - mean) / std
    logits, pullback = pytorch.explain(
        copy.deepcopy(module).double().eval(),
        torch.from_numpy(np.asarray(images, np.float64)),
        torch.from_numpy(classes),
        metadata.method,
        **parameters,
    )
    return Answer(logits.numpy(), pullback.numpy())


def derivation(
    metadata: Metadata,
    source: Any,
    options: dict[str, Any],
    several: bool,
    size: tuple[int, int],
) -> Answering:
    """A fresh explain graph's answers, of the source, by the method and parameters that metadata
    name, evaluated in float64, and derived without what makes graphs quick: what is wrong in the
    pullback alone by a fold or a form is not wrong in it.

    Args:
        source, options: as `onnxplain.export` takes them.
        several: whether each image has several classes.
        size: the images' height and width.

    Raises:
        SourceError: the source cannot be exported.
        Exception: of any kind, here and when asked, where the evaluator has no such operator.
    """
    from onnxplain.export.pipeline import export_plain
    from onnxplain.export.sources.tracing import blank_image

    pre = metadata.preprocessing
    options = {**options, **as_asked(metadata.parameters), "size": size}
    if not isinstance(source, str | os.PathLike):
        options["example"] = blank_image(source, pre.channels, size)
    options |= {"method": metadata.method, "multi_target": several}
    options |= {"mean": pre.mean, "std": pre.std}  # the bounds of pixels, by which box goes
    with scratch() as folder:
        path = folder / "fresh.explain.onnx"
        try:
            fresh = export_plain(source, path, ExportOptions(**options))
        except SourceError:
            # A value that the export chose by itself, and of which the source knows no name.
            fresh = export_plain(source, path, ExportOptions(**options | {"layer": None}))
            if fresh.parameters != metadata.parameters:
                raise
        return graph_in_float64(path, fresh)


def classes_of(targets: Array, logits: Array) -> Array:
    """The classes ≥ 0 that a graph explained: those from the top follow the graph's own logits, so
    that a near tie between float32 and float64 does not compare the explanations of two classes.

    Raises:
        InputError: targets of a wrong shape or out of range.
    """
    several = targets.ndim == 2
    return resolve(as_indices(targets, len(logits), logits.shape[1], (), several), logits)


def compare(
    explainer: Explainer, module: nn.Module, images: npt.ArrayLike, targets: npt.ArrayLike
) -> dict[str, Parity]:
    """Run an explain graph and, in float64, the PyTorch reference of its method.

    Args:
        explainer, images, targets: as for `of_graph`.
        module: the network the graph was exported from; it is copied, not changed.

    Returns:
        {"logits": Parity, "pullback": Parity}.

    Raises:
        InputError: the reference has no such method, or cannot use the module or the targets.
        NoRuleError: relevances have no rule for an operation of the module.
    """
    given, target = np.asarray(images, np.float32), np.asarray(targets, np.int64)
    answer = of_graph(explainer, given, target)
    classes = classes_of(target, answer.logits)

    def ask(x: Array) -> Answer:
        return of_pytorch(explainer.metadata, module, x, classes)

    return answer.parity(estimated(explainer, ask, given))
