"""From an explanation to the bytes of an answer. Runs in threads."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.estimator import CONVERGENCE_DELTA
from onnxplain.contract.explain import Metadata
from onnxplain.contract.objective import EXPLAINED_BOX, EXPLAINED_CLASS
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.inputs.batches import box_in_photograph
from onnxplain.runtime.pictures.figures import draw
from onnxplain.serve.decode import Prepared
from onnxplain.serve.refusal import unusable
from onnxplain.serve.schemas import Tensor

MEDIA_TYPES = {
    "json": "application/json",
    "png": "image/png",
    "npz": "application/x-npz",
}
"""An output's name → its content type."""

_SMALL = 10_000
"""Numbers of an output that an answer in JSON holds."""

_OF_TARGETS: dict[str, tuple[int, ...]] = {
    EXPLAINED_CLASS: (),
    EXPLAINED_BOX: (4,),
    CONVERGENCE_DELTA: (),
}
"""Outputs that each target has its own of, and what one is."""

_PNG_LEVEL = 3  # deflate's; at higher levels a heatmap's noise does not shrink further


def render(name: str, explainer: Explainer, asked: Prepared, explained: Explanation) -> bytes:
    """The answer, in the format that was asked for.

    Raises:
        Refusal: the network's output for this input is not finite; or of its pullback there is no
            such picture.
    """
    explanation = gather(asked, explained)
    if explanation.nonfinite() is not None:
        raise unusable("the network's output for this input is not finite")
    match asked.options.output:
        case "png":
            encoded = io.BytesIO()
            try:
                picture = draw(explanation.rows(), asked.options.look)
            except InputError as error:
                raise unusable(str(error)) from None
            picture.save(encoded, "PNG", compress_level=_PNG_LEVEL)
            return encoded.getvalue()
        case "npz":
            return _npz(explanation)
    described = _head(name, explainer)
    if explanation.is_of_class:
        described |= _of_classes(explanation, asked.options.top_k)
    else:
        described |= _of_objective(explanation, asked, explainer.metadata)
    pullback = explanation.pullback[0].astype(np.float32, copy=False)
    described["pullback"] = Tensor.of(pullback)
    return json.dumps(described, ensure_ascii=False, allow_nan=False).encode()


def gather(asked: Prepared, explained: Explanation) -> Explanation:
    """One image's explanation for its K targets as [1,K,…], whether they were K rows or one."""
    pullback, objective, outputs = explained.pullback, explained.objective, explained.outputs
    first = explained[:1]
    of_targets = {
        name: outputs[name].reshape(1, -1, *shape)
        for name, shape in _OF_TARGETS.items()
        if name in outputs
    }
    return replace(
        first,
        pullback=pullback.reshape(1, -1, *pullback.shape[-3:]),
        targets=explained.targets.reshape(1, -1),
        photographs=asked.photograph[None],
        sources=[asked.source],
        outputs={**first.outputs, **of_targets},
        objective=None if objective is None else objective.reshape(1, -1),
    )


def _npz(explanation: Explanation) -> bytes:
    arrays = {"pullback": explanation.pullback[0], "targets": explanation.targets[0]}
    if explanation.objective is None:
        arrays |= {"logits": explanation.logits[0], "probabilities": explanation.probabilities[0]}
        if explanation.convergence_delta is not None:
            arrays[CONVERGENCE_DELTA] = explanation.convergence_delta[0]
    else:
        arrays |= {"objective": explanation.objective[0], **_of_image(explanation)}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:  # np.savez takes no array called "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return written.getvalue()


def _of_image(explanation: Explanation) -> dict[str, NDArray[Any]]:
    """The outputs for the only image, without their batch axis."""
    axes = {name: explanation.explained.batch_axis(name) or 0 for name in explanation.outputs}
    return {name: array.take(0, axes[name]) for name, array in explanation.outputs.items()}


def _head(name: str, explainer: Explainer) -> dict[str, Any]:
    return {"model": name, "method": explainer.metadata.described_method}


def _of_classes(explanation: Explanation, top_k: int) -> dict[str, Any]:
    """What an `ExplainResponse` has besides."""
    logits, probabilities = explanation.logits[0], explanation.probabilities[0]
    ranking = np.argsort(-probabilities, kind="stable")[:top_k]

    def prediction(index: int) -> dict[str, Any]:
        probability = float(probabilities[index])
        return {"index": index, "name": explanation.name(index), "probability": probability}

    delta = explanation.convergence_delta
    told = {} if delta is None else {CONVERGENCE_DELTA: Tensor.of(delta[0].astype(np.float32))}
    return told | {
        "predictions": [prediction(index) for index in ranking.tolist()],
        "targets": [
            prediction(index) | {"logit": float(logits[index])}
            for index in explanation.targets[0].tolist()
        ],
        "logits": Tensor.of(logits.astype(np.float32, copy=False)),
    }


def _of_objective(explanation: Explanation, asked: Prepared, metadata: Metadata) -> dict[str, Any]:
    """What an `ObjectiveResponse` has besides."""
    (row,), outputs = explanation.rows(), _of_image(explanation)
    targets = [{"name": name, "value": value} for name, value in row.targets]
    if explanation.explained.classes:
        for target, index in zip(targets, explanation.targets[0].tolist(), strict=True):
            target["index"] = index
    if (boxes := outputs.get(EXPLAINED_BOX)) is not None:
        if asked.size is not None:
            held = metadata.pixels.held(asked.size)
            boxes = box_in_photograph(boxes, held, metadata.preprocessing)
        for target, box in zip(targets, boxes.tolist(), strict=True):
            target["box"] = box
    small = {
        name: Tensor.of(np.atleast_1d(array).astype(_sent_as(array), copy=False))
        for name, array in outputs.items()
        if name not in (EXPLAINED_BOX, EXPLAINED_CLASS) and 0 < array.size <= _SMALL
    }
    return {"objective": explanation.explained.name, "targets": targets, "outputs": small}


def _sent_as(array: NDArray[Any]) -> str:
    return "float32" if array.dtype.kind == "f" else "int64"
