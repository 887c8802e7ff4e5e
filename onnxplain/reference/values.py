"""An explain graph of other values than one image, beside the network that it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy.typing as npt
import onnx

from onnxplain.contract.explain import LOGITS, TARGET, Metadata
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.request import as_asked
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.reference.checks import Check, Verification, by_cosine, by_error
from onnxplain.reference.float64 import evaluator, in_float64, run
from onnxplain.reference.forward import run_forward
from onnxplain.reference.logits import nearest
from onnxplain.reference.outputs import is_same, noise_images
from onnxplain.reference.parity import Parity
from onnxplain.reference.sources import FLOAT32, is_onnx, run_onnx, run_pytorch, tolerance
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.objective import noise_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.inputs.values import noise_values
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.signature import Signature
from onnxplain.runtime.values import ValuesExplanation, explain_values
from onnxplain.runtime.verification import least_cosine

Array = npt.NDArray[Any]

TOLERANCE, LOOSE = 1e-4, 3e-2
"""The relative error within which an answer in float32 is right; and a pullback, as a gate may open
in float32 and not in float64."""


def compare_values(file: Path, original: Any) -> str | None:
    """What the network puts out, beside its source, on noise.

    Args:
        original: the path of an ONNX file, or what PyTorch runs.

    Returns:
        What is to be noted: why they cannot be compared, if they cannot. None otherwise.

    Raises:
        SourceError: they differ by more than rounding, or the graph does not run where an ONNX file
            does.
    """
    inputs, outputs = read_ports(file)
    signature = Signature.of(read_metadata(file), inputs, outputs)
    found: dict[str, Array] | str = "it takes no noise"
    for given in noise_values(signature):
        found = _of_source(original, given)
        if not isinstance(found, str):
            break
    if isinstance(found, str):
        return f"not checked: the source does not run on noise: {found}"
    names = [name for name in signature.outputs if name == LOGITS or _own(name) in found]
    others = {name: port for name, port in inputs.items() if name not in given}
    samples = len(next(iter(given.values())))
    try:
        ours = run_forward(file, given | noise_images(others, samples), names)
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"
    limit = max(FLOAT32, tolerance(original))
    for name, y in ours.items():
        if name == LOGITS and signature.metadata.objective.is_class:
            rows = [z.reshape(len(y), -1) for z in found.values() if z.size == y.size]
            parity = nearest(y, rows)
            same = parity is not None and parity.relative_l2 <= limit
        else:
            same = is_same(y, found[_own(name)].astype(y.dtype), limit)
        if not same:
            again = _of_source(original, given)
            if isinstance(again, str) or not all(is_same(found[n], again[n], 0) for n in found):
                return "not checked: the source does not answer twice the same"
            raise SourceError(f"on noise, its {name} differ from those of its source")
    return None


def _own(name: str) -> str:
    return name.removeprefix("source.")


def _of_source(original: Any, given: Mapping[str, Array]) -> dict[str, Array] | str:
    """What it makes of the inputs, or why it makes nothing."""
    inputs = {_own(name): array for name, array in given.items()}
    try:
        return run_onnx(original, inputs) if is_onnx(original) else run_pytorch(original, inputs)
    except Exception as error:  # of any kind: it may be the user's own code
        return str(error)


def verify_values(
    explainer: Explainer,
    source: Any,
    options: Mapping[str, Any],
    tolerance: float | None,
) -> Verification:
    """Compare what the graph puts out with a fresh export of its source, evaluated in float64.

    Args:
        source, options: as `onnxplain.export` takes them ("weights", "output", "objective").

    Raises:
        InputError: nothing here evaluates one of the network's operators in float64.
        SourceError: the source cannot be read or exported.
        BackendError: the graph does not take noise.
    """
    signature, metadata = explainer.backend.signature, explainer.metadata
    given, found = _answered(explainer)
    samples = len(next(iter(given.values())))
    feeds = given | noise_inputs(signature, samples)
    if signature.has_target:
        feeds[TARGET] = target_input(signature, None, samples)
    right = _fresh(explainer, source, options, feeds)
    pullbacks = {one.pullback: found.pullbacks[n] for n, one in metadata.values.explained.items()}
    others = {name: y for name, y in found.outputs.items() if y.dtype.kind == "f"}
    if found.objective is not None:
        others[OBJECTIVE] = found.objective
    checks: list[Check] = []
    for name, y in {**others, **pullbacks}.items():
        parity = Parity.of(y, right[name])
        if tolerance is None and explainer.backend.precision != "float32":
            checks.append(by_cosine(name, parity, least_cosine(explainer.backend.precision)))
            continue
        limit = LOOSE if name in pullbacks else TOLERANCE
        checks.append(by_error(name, parity, limit if tolerance is None else tolerance))
    return Verification("against a fresh derivation in float64", samples, tuple(checks))


def _answered(explainer: Explainer) -> tuple[dict[str, Array], ValuesExplanation]:
    """Noise of a length that the graph takes, and what it says of it."""
    signature = explainer.backend.signature
    *first, last = noise_values(signature)
    own = noise_inputs(signature, len(next(iter(last.values()))))
    for given in first:
        try:
            return given, explain_values(explainer.backend, given, inputs=own)
        except BackendError:
            continue
    return last, explain_values(explainer.backend, last, inputs=own)


def _fresh(
    explainer: Explainer, source: Any, options: Mapping[str, Any], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    from onnxplain.export.pipeline import export

    metadata: Metadata = explainer.metadata
    asked: dict[str, Any] = {
        **{name: value for name, value in options.items() if value is not None},
        **as_asked(metadata.parameters),
        **{"method": metadata.method, "wrt": list(metadata.values.explained)},
        **{"settings": dict(metadata.objective.settings), "check": False},
        **{"multi_target": explainer.multi_target},
    }
    if not isinstance(source, str | os.PathLike):
        import torch

        own = metadata.values.inputs
        asked["example"] = {_own(name): torch.from_numpy(feeds[name]) for name in own}
    with TemporaryDirectory(prefix="onnxplain-") as folder:
        path = Path(folder) / "fresh.explain.onnx"
        export(source, path, **asked)
        model = in_float64(onnx.load(path))
    try:
        return run(evaluator(model), feeds)
    except Exception as error:  # whatever an operator that NumPy has to play may raise
        raise InputError(
            f"the network cannot be evaluated in float64 here: {type(error).__name__}: {error}"
        ) from error
