"""An explain graph of other values than one image, beside the network that it was made of."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import LOGITS, TARGET
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.request import as_asked
from onnxplain.errors import BackendError, SourceError, UnfinishedError
from onnxplain.reference.checks import Check, Verification, by_error
from onnxplain.reference.derivatives import Scalar
from onnxplain.reference.forward import run_forward
from onnxplain.reference.fresh import beside, derived
from onnxplain.reference.independent import (
    derivatives,
    is_derivative,
    outputs_by_source,
    sized,
    stepped,
)
from onnxplain.reference.logits import nearest
from onnxplain.reference.outputs import is_alike, is_near, is_same, noise_images
from onnxplain.reference.sources import FLOAT32, is_onnx, run_onnx, run_pytorch, tolerance
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.inputs.values import noise_values
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.signature import Signature
from onnxplain.runtime.values import ValuesExplanation, explain_values
from onnxplain.runtime.verification import explained_noise

Array = npt.NDArray[Any]


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
    explained = LOGITS if signature.metadata.objective.is_class else OBJECTIVE
    others = {name: port for name, port in inputs.items() if name not in given}
    samples = len(next(iter(given.values())))
    try:
        feeds = given | noise_images(others, samples)
        ours = run_forward(file, feeds, list(dict.fromkeys([*names, explained])))
        if signature.batch is None:
            _check_samples(file, signature, feeds, ours[explained], explained)
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"
    limit = max(FLOAT32, tolerance(original))
    for name in names:
        y = ours[name]
        if name == LOGITS and signature.metadata.objective.is_class:
            rows = [z.reshape(len(y), -1) for z in found.values() if z.size == y.size]
            parity = nearest(y, rows)
            same = parity is not None and parity.relative_l2 <= limit
        else:
            same = is_alike(y, found[_own(name)].astype(y.dtype), limit)
        if not same:
            again = _of_source(original, given)
            if isinstance(again, str) or not all(is_same(found[n], again[n], 0) for n in found):
                return "not checked: the source does not answer twice the same"
            raise SourceError(f"on noise, its {name} differ from those of its source")
    return None


def _check_samples(
    file: Path, signature: Signature, given: Mapping[str, Array], found: Array, name: str
) -> None:
    """Hold what is said of the last of several samples to what is said of it alone.

    Args:
        given: what the graph was given.
        found: what it said of that, [N, …].
        name: of which output.

    Raises:
        SourceError: it is something else.
    """
    whole = {n for n, one in signature.metadata.values.inputs.items() if not one.batched}
    alone = {n: x if n in whole or not x.ndim else x[-1:] for n, x in given.items()}
    try:
        last = run_forward(file, alone, [name])[name]
    except BackendError:  # as networks may need several
        return
    if not is_near(last, found[-1:]):
        raise SourceError(
            f"its {name} of a sample depend on the others of its batch: the first axis of what it "
            "takes is no batch, as where time comes first, or it normalises over that"
        )


def _own(name: str) -> str:
    return name.removeprefix("source.")


def _of_source(original: Any, given: Mapping[str, Array]) -> dict[str, Array] | str:
    """What it makes of the inputs, or why it makes nothing."""
    inputs = {_own(name): array for name, array in given.items()}
    try:
        return run_onnx(original, inputs) if is_onnx(original) else run_pytorch(original, inputs)
    except UnfinishedError:
        raise
    except Exception as error:  # of any kind: it may be the user's own code
        return str(error)


def verify_values(
    explainer: Explainer,
    source: Any,
    options: Mapping[str, Any],
    tolerance: float | None,
) -> Verification:
    """Compare what the graph puts out with a fresh export of its source, evaluated in float64; its
    outputs with the source's own, and its pullbacks by inputs with differences, where they are
    derivatives.

    Args:
        source, options: as `onnxplain.export` takes them ("weights", "output", "objective").

    Raises:
        InputError: nothing here evaluates one of the network's operators in float64.
        SourceError: the source cannot be read or exported.
        BackendError: the graph does not take noise.
    """
    signature, metadata = explainer.backend.signature, explainer.metadata
    given, own, found = explained_noise(explainer.backend)
    samples, feeds = len(next(iter(given.values()))), given | own
    if signature.has_target:
        feeds[TARGET] = target_input(signature, None, samples)
    asked: dict[str, Any] = {
        **{name: value for name, value in options.items() if value is not None},
        **as_asked(metadata.parameters),
        **{"method": metadata.method, "wrt": list(metadata.values.explained)},
        **{"settings": dict(metadata.objective.settings), "check": False},
        **{"multi_target": explainer.multi_target},
    }
    if not isinstance(source, str | os.PathLike):
        import torch

        asked["example"] = {
            _own(name): torch.from_numpy(feeds[name]) for name in metadata.values.inputs
        }
    right = derived(source, asked, feeds)
    pullbacks = {one.pullback: found.pullbacks[n] for n, one in metadata.values.explained.items()}
    others = {name: y for name, y in found.outputs.items() if y.dtype.kind == "f"}
    if found.objective is not None:
        others[OBJECTIVE] = found.objective
    ours, precision = {**others, **pullbacks}, explainer.backend.precision
    fresh = beside(ours, right, pullbacks, tolerance, precision, samples)
    if precision != "float32":
        return fresh
    checks, notes = [*fresh.checks], list[str]()
    if is_onnx(source) or not isinstance(source, str | os.PathLike):
        by_source, notes = outputs_by_source(
            others, lambda: _named_as(others, source, given), source
        )
        checks += [*by_source, *_logits_by_source(others, source, given)]
    asked_for = metadata.parameters.get("objective", options.get("objective"))
    if is_derivative(explainer, asked_for or metadata.objective.name):
        for name, one in metadata.values.explained.items():
            if name in given:
                scalar = _scalar(explainer, name, given, own, found.targets)
                checks += derivatives(scalar, given[name], ours[one.pullback], tolerance, name)
    return replace(fresh, checks=tuple(checks), notes=(*notes, *stepped(explainer)))


def _named_as(
    names: Collection[str], source: Any, given: Mapping[str, Array]
) -> dict[str, Array] | str:
    """What the source makes of the inputs, by the names that its outputs have in the graph."""
    found = _of_source(source, given)
    if isinstance(found, str):
        return found
    return {name: found[_own(name)] for name in names if _own(name) in found}


def _logits_by_source(
    outputs: Mapping[str, Array], source: Any, given: Mapping[str, Array]
) -> list[Check]:
    """A classifier's logits, beside the source's output that is nearest to them."""
    found = _of_source(source, given)
    y = outputs.get(LOGITS)
    if y is None or isinstance(found, str) or LOGITS in found:
        return []
    parity = nearest(y, [z.reshape(len(y), -1) for z in found.values() if z.size == y.size])
    limit = max(FLOAT32, tolerance(source))
    return [] if parity is None else [by_error(f"{LOGITS}, by the source itself", parity, limit)]


def _scalar(
    explainer: Explainer,
    name: str,
    given: Mapping[str, Array],
    own: Mapping[str, Array],
    targets: Array,
) -> Scalar:
    """What is explained of the first sample, by the values of one of its inputs.

    Args:
        own: what the objective takes besides.
        targets: those that were explained.
    """
    signature, inputs = explainer.backend.signature, explainer.metadata.values.inputs

    def of_as_many(points: Array) -> ValuesExplanation:
        count = len(points)
        asked = {
            n: array[:1].repeat(count, 0) if inputs[n].batched else array
            for n, array in given.items()
        }
        besides = {n: array[:1].repeat(count, 0) for n, array in own.items()}
        target = targets[:1].repeat(count, 0) if signature.has_target else None
        return explain_values(explainer.backend, {**asked, name: points}, target, inputs=besides)

    def scalar(points: Array) -> tuple[Array, float]:
        size = signature.batch or len(points)
        starts = range(0, len(points), size)
        runs = [of_as_many(filled(points[i : i + size], size)) for i in starts]
        ys = [
            run.logits[np.arange(size), np.atleast_2d(run.targets.T)[0]]
            if run.objective is None
            else run.objective.reshape(size, -1)[:, 0]
            for run in runs
        ]
        return sized(np.concatenate(ys)[: len(points)], {**runs[0].outputs, LOGITS: runs[0].logits})

    return scalar
