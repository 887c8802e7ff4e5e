"""Is an explain graph right that explains no class? Against a fresh derivation in float64."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.request import as_asked
from onnxplain.errors import InputError
from onnxplain.reference.checks import Check, Verification, by_cosine, by_error
from onnxplain.reference.float64 import evaluator, in_float64, run
from onnxplain.reference.parity import Parity
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.objective import noise_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.verification import least_cosine

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""The relative error within which an answer in float32 is right."""

LOOSE = 3e-2
"""The same of the pullback: a gate may open in float32 and not in float64."""


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
    signature, metadata = explainer.backend.signature, explainer.metadata
    pre = metadata.preprocessing
    batch = np.moveaxis(images, 1, -1) if pre.layout == "NHWC" else images
    targets = target_input(signature, None, len(batch))
    inputs = noise_inputs(signature, len(batch))
    found = explainer.answer(batch, targets, inputs=inputs)
    feeds = {IMAGE: batch, **inputs, **({TARGET: targets} if signature.has_target else {})}
    names = [*signature.metadata.objective.axes, OBJECTIVE, PULLBACK]
    right = _fresh(explainer, source, options, feeds, names)
    if pre.layout == "NHWC":
        right[PULLBACK] = np.moveaxis(right[PULLBACK], -1, -3)
    checks: list[Check] = []
    for name in names:
        parity = Parity.of(found[name], right[name])
        if tolerance is None and explainer.backend.precision != "float32":
            checks.append(by_cosine(name, parity, least_cosine(explainer.backend.precision)))
            continue
        limit = LOOSE if name == PULLBACK else TOLERANCE
        checks.append(by_error(name, parity, limit if tolerance is None else tolerance))
    return Verification("against a fresh derivation in float64", len(batch), tuple(checks))


def _fresh(
    explainer: Explainer,
    source: Any,
    options: Mapping[str, Any],
    feeds: Mapping[str, Array],
    names: list[str],
) -> dict[str, Array]:
    from onnxplain.export.pipeline import export
    from onnxplain.export.sources.tracing import blank_image

    metadata = explainer.metadata
    pre = metadata.preprocessing
    size = pre.height, pre.width
    asked: dict[str, Any] = {
        **{name: value for name, value in options.items() if value is not None},
        **as_asked(metadata.parameters),
        **{"method": metadata.method, "check": False},
        **{"settings": dict(metadata.objective.settings)},
        **{"multi_target": explainer.multi_target, "size": size},
    }
    if not isinstance(source, str | os.PathLike):
        asked["example"] = blank_image(source, pre.channels, size)
    with TemporaryDirectory(prefix="onnxplain-") as folder:
        path = Path(folder) / "fresh.explain.onnx"
        export(source, path, **asked)
        model = in_float64(onnx.load(path))
    try:
        return run(evaluator(model), feeds, names)
    except Exception as error:  # whatever an operator that NumPy has to play may raise
        raise InputError(
            f"the network cannot be evaluated in float64 here: {type(error).__name__}: {error}"
        ) from error
