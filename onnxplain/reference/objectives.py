"""Is an explain graph right that explains no class? Against a fresh derivation in float64."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.request import as_asked
from onnxplain.reference.checks import Verification
from onnxplain.reference.fresh import beside, derived
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
    """Compare what the graph puts out with a fresh export of its source, evaluated in float64.

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
    names = [*signature.metadata.objective.axes, OBJECTIVE, PULLBACK]
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
    return beside(ours, right, [PULLBACK], tolerance, precision, len(batch))
