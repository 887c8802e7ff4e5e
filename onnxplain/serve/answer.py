"""From an explanation to the bytes of an answer. Runs in threads."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from onnxplain.runtime import Explainer, Explanation
from onnxplain.serve.batcher import Explained
from onnxplain.serve.decode import Prepared
from onnxplain.serve.refusal import unusable
from onnxplain.serve.schemas import Tensor

MEDIA_TYPES = {
    "json": "application/json",
    "png": "image/png",
    "npz": "application/x-npz",
}
"""An output's name → its content type."""

_PNG_LEVEL = 3  # deflate's; at higher levels a heatmap's noise does not shrink further


def render(name: str, explainer: Explainer, asked: Prepared, explained: Explained) -> bytes:
    """The answer, in the format that was asked for.

    Raises:
        Refusal: the network's output for this input is not finite.
    """
    explanation = gather(explainer, asked, explained)
    if not all(np.isfinite(array).all() for array in (explanation.logits, explanation.pullback)):
        raise unusable("the network's output for this input is not finite")
    match asked.options.output:
        case "png":
            encoded = io.BytesIO()
            explanation.draw("overlay").save(encoded, "PNG", compress_level=_PNG_LEVEL)
            return encoded.getvalue()
        case "npz":
            return _npz(explanation)
    described = _described(name, explainer, asked.options.top_k, explanation)
    return json.dumps(described, ensure_ascii=False, allow_nan=False).encode()


def gather(explainer: Explainer, asked: Prepared, explained: Explained) -> Explanation:
    """One image's explanation for its K targets as [1,K,…], whether they were K rows or one."""
    logits, pullback, targets = explained
    return Explanation(
        logits=logits[:1],
        pullback=pullback.reshape(1, -1, *pullback.shape[-3:]),
        targets=targets.reshape(1, -1),
        photographs=asked.photograph[None],
        class_names=explainer.labels,
        activation=explainer.metadata.activation,
    )


def _npz(explanation: Explanation) -> bytes:
    arrays = io.BytesIO()
    np.savez(
        arrays,
        logits=explanation.logits[0],
        pullback=explanation.pullback[0],
        targets=explanation.targets[0],
        probabilities=explanation.probabilities[0],
    )
    return arrays.getvalue()


def _described(
    name: str, explainer: Explainer, top_k: int, explanation: Explanation
) -> dict[str, Any]:
    """An `ExplainResponse`."""
    logits, probabilities = explanation.logits[0], explanation.probabilities[0]
    ranking = np.argsort(-probabilities, kind="stable")[:top_k]

    def prediction(index: int) -> dict[str, Any]:
        probability = float(probabilities[index])
        return {"index": index, "name": explanation.name(index), "probability": probability}

    return {
        "model": name,
        "method": explainer.metadata.described_method,
        "predictions": [prediction(index) for index in ranking.tolist()],
        "targets": [
            prediction(index) | {"logit": float(logits[index])}
            for index in explanation.targets[0].tolist()
        ],
        "logits": Tensor.of(logits.astype(np.float32, copy=False)),
        "pullback": Tensor.of(explanation.pullback[0].astype(np.float32, copy=False)),
    }
