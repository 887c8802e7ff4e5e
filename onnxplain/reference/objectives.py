"""Is an explain graph right that explains no class? Beside a fresh derivation in float64, what its
source puts out, and differences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.request import as_asked
from onnxplain.reference.checks import Verification
from onnxplain.reference.forward import turned
from onnxplain.reference.fresh import beside, derived
from onnxplain.reference.independent import (
    derivatives,
    is_derivative,
    outputs_by_source,
    sized,
)
from onnxplain.reference.outputs import own_outputs
from onnxplain.reference.sources import is_onnx
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.objective import noise_inputs
from onnxplain.runtime.inputs.targets import target_input

Array = npt.NDArray[Any]


def verify_objective(
    explainer: Explainer,
    source: Any,
    options: Mapping[str, Any],
    images: Array,
    tolerance: float | None,
) -> Verification:
    """Compare what the graph puts out with a fresh export of its source, evaluated in float64; its
    outputs with the source's own, and its pullback with differences, where it is a derivative.

    Args:
        source, options: as `onnxplain.export` takes them ("weights", "input", "output",
            "objective").
        images: normalised float32, [N, C, H, W].

    Raises:
        InputError: nothing here evaluates one of the network's operators in float64.
        SourceError: the source cannot be read or exported.
    """
    from onnxplain.export.sources.tracing import blank_image

    signature, metadata = explainer.backend.signature, explainer.metadata
    pre = metadata.preprocessing
    batch = np.moveaxis(images, 1, -1) if pre.layout == "NHWC" else images
    targets = target_input(signature, None, len(batch))
    inputs = noise_inputs(signature, len(batch))
    found = explainer.answer(batch, targets, inputs=inputs)
    feeds = {IMAGE: batch, **inputs, **({TARGET: targets} if signature.has_target else {})}
    own = [name for name in metadata.objective.axes if found[name].dtype.kind == "f"]
    names = [*own, OBJECTIVE, PULLBACK]
    asked: dict[str, Any] = {
        **{name: value for name, value in options.items() if value is not None},
        **as_asked(metadata.parameters),
        **{"method": metadata.method, "check": False},
        **{"settings": dict(metadata.objective.settings)},
        **{"multi_target": explainer.multi_target, "size": (pre.height, pre.width)},
    }
    if not isinstance(source, str | os.PathLike):
        asked["example"] = blank_image(source, pre.channels, asked["size"])
    right = derived(source, asked, feeds, names)
    if pre.layout == "NHWC":
        right[PULLBACK] = np.moveaxis(right[PULLBACK], -1, -3)
    ours, precision = {name: found[name] for name in names}, explainer.backend.precision
    fresh = beside(ours, right, [PULLBACK], tolerance, precision, len(batch))
    if precision != "float32":
        return fresh
    checks = [*fresh.checks]
    if is_onnx(source) or not isinstance(source, str | os.PathLike):
        given = turned(metadata, batch)
        checks += outputs_by_source(
            {name: found[name] for name in own},
            lambda: own_outputs(source, given, options["input"], own),
            source,
        )

    def scalar(points: Array) -> tuple[Array, float]:
        placed = np.moveaxis(points, 1, -1) if pre.layout == "NHWC" else points
        asked = {name: array[:1].repeat(len(points), 0) for name, array in inputs.items()}
        again = explainer.answer(placed, targets[:1].repeat(len(points), 0), inputs=asked)
        y = again[OBJECTIVE].reshape(len(points), -1)[:, 0]
        return sized(y, {name: again[name] for name in own if name in again})

    if is_derivative(explainer, options["objective"]):
        checks += derivatives(scalar, images, found[PULLBACK], tolerance)
    return replace(fresh, checks=tuple(checks))
