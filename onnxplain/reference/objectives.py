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
from onnxplain.contract.objective import OBJECTIVE, Explained
from onnxplain.contract.request import as_asked
from onnxplain.reference.checks import Check, Verification
from onnxplain.reference.forward import turned
from onnxplain.reference.fresh import beside, derived
from onnxplain.reference.independent import (
    derivatives,
    is_derivative,
    outputs_by_source,
    sized,
    stepped,
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
        **{"multi_target": explainer.multi_target, "size": images.shape[2:]},
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
    checks, notes = [*fresh.checks], list[str]()
    if is_onnx(source) or not isinstance(source, str | os.PathLike):
        outputs, given = {name: found[name] for name in own}, turned(metadata, batch)
        by_source, notes = _by_source(outputs, source, given, options["input"], metadata.objective)
        checks += by_source

    def scalar(points: Array) -> tuple[Array, float]:
        placed = np.moveaxis(points, 1, -1) if pre.layout == "NHWC" else points
        asked = {name: array[:1].repeat(len(points), 0) for name, array in inputs.items()}
        again = explainer.answer(placed, targets[:1].repeat(len(points), 0), inputs=asked)
        y = again[OBJECTIVE].reshape(len(points), -1)[:, 0]
        return sized(y, {name: again[name] for name in own if name in again})

    if is_derivative(explainer, options["objective"]):
        checks += derivatives(scalar, images, found[PULLBACK], tolerance)
    return replace(fresh, checks=tuple(checks), notes=(*notes, *stepped(explainer)))


def _by_source(
    found: Mapping[str, Array],
    source: Any,
    images: Array,
    input: str | None,
    objective: Explained,
) -> tuple[list[Check], list[str]]:
    """`outputs_by_source` of images, or of the first where the source takes one alone."""
    names = [*found]
    if isinstance(own_outputs(source, images, input, names), str):
        axes = {name: objective.batch_axis(name) for name in names}
        found = {n: found[n].take([0], axis) for n, axis in axes.items() if axis is not None}
        images = images[:1]
    return outputs_by_source(found, lambda: own_outputs(source, images, input, names), source)
