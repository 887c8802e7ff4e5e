"""Is a node test's vector-Jacobian product right? Central differences of the test itself tell."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from onnxplain.bench.node_tests.cases import DRAWING, NodeTest
from onnxplain.contract.derivatives import GRADIENT, INPUT, SEED, DifferentiateOptions
from onnxplain.errors import OnnxplainError
from onnxplain.export.canonical.ports import forward_between
from onnxplain.export.differentiate import add_derivatives
from onnxplain.export.finish import clean
from onnxplain.reference.float64 import evaluator, in_float64

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Run = Callable[[Feeds], dict[str, Array]]

RIGHT, WRONG, CRASH, REFUSED = "right", "wrong", "crash", "refused"
CONSTANT, UNDECIDED = "no derivative", "undecided"
KINK = "a kink or a jump at the test's inputs"


@dataclass(frozen=True)
class Verdict:
    """What a node test showed, and why where it is not right."""

    test: str
    operator: str
    verdict: str
    reason: str = ""


def judge(test: NodeTest, sweep: Sweep | None = None) -> Verdict:
    """Sweep a test's canonical form, and compare with differences of the test.

    Args:
        sweep: what sweeps it, `swept` by default.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        verdict, reason = _judge(test, sweep or swept)
    return Verdict(test.name, test.operator, verdict, reason)


def _judge(test: NodeTest, sweep: Sweep) -> tuple[str, str]:
    runs = list(_originals(test))
    run = runs[0] if runs else None
    if test.name in INVALID:
        return UNDECIDED, INVALID[test.name]
    try:
        ours = sweep(test)
    except OnnxplainError as error:
        if run is not None and is_constant(test, run):
            return CONSTANT, ""
        return REFUSED, " ".join(str(error).split())[:200]
    except Exception as error:
        return CRASH, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if run is None:
        return UNDECIDED, "nothing evaluates the test in float64 as the test has it"
    if ours is None:
        return (CONSTANT, "") if is_constant(test, run) else (WRONG, "nothing flows")
    # A wrong one is wrong beside each: ONNX's evaluator computes some operators in float32.
    verdicts = []
    for run in runs:
        verdicts.append(_compared(test, run, ours))
        if verdicts[-1][0] == RIGHT:
            return verdicts[-1]
    return next((found for found in verdicts if found[0] != UNDECIDED), verdicts[-1])


# ----- the test itself -----


INVALID = {
    "test_maxunpool_export_with_output_shape": "the test itself is wrong (onnx/onnx#5741)",
}
"""Test → why it is none. ONNX Runtime leaves it out too."""


def _originals(test: NodeTest) -> Iterator[Run]:
    """The test in float64: by ONNX Runtime, the reference evaluator, or ours, where right.

    What draws numbers cannot draw those that the test drew; the reference evaluator draws the same
    each time.
    """
    wide = in_float64(copy.deepcopy(test.model))
    if any(node.op_type == DRAWING for node in wide.graph.node):
        yield _by_reference(wide)
        return
    spelled = wide if test.expanded is None else in_float64(copy.deepcopy(test.expanded))
    wide.ir_version = spelled.ir_version = min(wide.ir_version, 11)
    for make, model in ((_by_runtime, wide), (_by_reference, wide), (_by_ours, spelled)):
        try:
            run = make(model)
            found = run(test.inputs)
        except Exception:
            continue
        if _same(found, test.outputs):
            yield run


def _same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    for name, y in expected.items():
        if y.dtype.kind != "f":
            continue
        if found[name].shape != y.shape:
            return False
        if not np.allclose(found[name], y, rtol=2e-2, atol=2e-2, equal_nan=True):
            return False
    return True


def _by_runtime(model: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with _any_opset():
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    names = [y.name for y in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


@contextmanager
def _any_opset() -> Iterator[None]:
    """ONNX Runtime takes opsets that are newer than itself, where it has the operators."""
    name = "ALLOW_RELEASED_ONNX_OPSET_ONLY"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name)
        os.environ.update({} if before is None else {name: before})


def _by_reference(model: onnx.ModelProto) -> Run:
    return _of_evaluator(ReferenceEvaluator(model))


def _by_ours(model: onnx.ModelProto) -> Run:
    return _of_evaluator(evaluator(model))


def _of_evaluator(run: ReferenceEvaluator) -> Run:
    return lambda feeds: dict(zip(run.output_names, run.run(None, dict(feeds)), strict=True))


# ----- ours -----


@dataclass(frozen=True)
class Swept:
    """The outputs by name, those of the test and `grad.X` for inputs X, given `seed.Y` for the
    outputs `seeded`."""

    run: Run
    seeded: list[str]


Sweep: TypeAlias = Callable[[NodeTest], Swept | None]
"""A test's sweep; None where no output of it is of floats."""


def swept(test: NodeTest) -> Swept | None:
    """As `onnxplain.differentiate` does it."""
    seeded = [name for name, y in test.outputs.items() if y.dtype.kind == "f"]
    if not seeded:
        return None
    forward = forward_between(ir.from_proto(copy.deepcopy(test.model)), seeded, None, {})
    add_derivatives(forward, DifferentiateOptions(seed=INPUT))
    clean(forward.model)
    return Swept(_of_evaluator(evaluator(in_float64(ir.to_proto(forward.model)))), seeded)


# ----- compared -----


def _compared(test: NodeTest, run: Run, ours: Swept) -> tuple[str, str]:
    """At the test's own inputs, else (at a kink) at inputs near by, then farther away."""
    rng = np.random.default_rng(0)
    verdict, reason = UNDECIDED, ""
    for distance in (0, 0.02, 0.04, 0.06, 0.5, 0.5, 0.5):
        xs = dict(test.inputs)
        if distance:
            xs = {k: _beside(x, distance, rng) for k, x in xs.items()}
        try:
            verdict, reason = _compared_at(xs, run, ours, rng)
        except Exception as error:
            return CRASH, f"evaluated: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        if verdict != UNDECIDED:
            return verdict, reason
    return verdict, reason


def _beside(x: Array, distance: float, rng: np.random.Generator) -> Array:
    return np.asarray(np.where(np.isfinite(x), x, 1.0) + distance * rng.normal(size=x.shape))


def _compared_at(xs: Feeds, run: Run, ours: Swept, rng: np.random.Generator) -> tuple[str, str]:
    ys = run(xs)
    gs = {name: np.asarray(rng.normal(size=ys[name].shape)) for name in ours.seeded}
    for name, g in gs.items():
        g[~np.isfinite(ys[name])] = 0
    found = ours.run({**xs, **{SEED.format(of=name): g for name, g in gs.items()}})
    for name, y in ys.items():
        if y.dtype.kind == "f" and not np.allclose(
            found[name], y, rtol=1e-3, atol=1e-4, equal_nan=True
        ):
            return WRONG, f"the forward pass, {name}"
    for name, x in xs.items():
        gx = found.get(GRADIENT.format(wrt=name), np.zeros(x.shape))  # none where nothing flows
        if gx.shape != x.shape:
            return WRONG, f"{name}: shape {gx.shape}, not {x.shape}"
        v = np.asarray(rng.normal(size=x.shape))
        along = float((gx * v).sum())
        slopes = _slopes(xs, name, v, run, gs)
        size = float(np.linalg.norm(np.nan_to_num(gx)) * np.linalg.norm(v)) + 1e-6
        scale = max([size, *(abs(s) for s in slopes if math.isfinite(s))])
        smooth = max(slopes) - min(slopes) <= 1e-3 * scale
        if smooth and any(abs(along - s) <= 1e-4 * scale for s in slopes[:2]):
            continue
        if not smooth:
            return UNDECIDED, f"{name}: {KINK}"
        if not (math.isfinite(along) or all(np.isfinite(y).all() for y in ys.values())):
            return UNDECIDED, "the result is not finite at the test's inputs"
        return WRONG, f"{name}: {along:.4g}, not {slopes[0]:.4g}"
    return RIGHT, ""


def _slopes(xs: Feeds, name: str, v: Array, run: Run, gs: Feeds) -> list[float]:
    """⟨g, J v⟩ by central differences of several steps, and by one-sided ones."""

    def at(h: float) -> float:
        ys = run({**xs, name: np.asarray(xs[name] + h * v)})
        total = 0.0
        for k, g in gs.items():
            y = ys[k]
            if y.shape != g.shape:
                return math.nan
            total += float(np.where(g == 0, 0, g * y).sum())
        return total

    here = at(0.0)
    central = [(at(h) - at(-h)) / (2 * h) for h in (1e-4, 1e-6)]
    sides = [(at(h) - here) / h for h in (1e-6, -1e-6)]
    return [*central, *sides]


def is_constant(test: NodeTest, run: Run) -> bool:
    """Whether differences, at several inputs, are all 0."""
    rng = np.random.default_rng(0)
    try:
        for _ in range(3):
            xs = {k: x + 0.01 * rng.normal(size=x.shape) for k, x in test.inputs.items()}
            ys = run(xs)
            floats = [k for k, y in ys.items() if y.dtype.kind == "f"]
            gs = {k: rng.normal(size=ys[k].shape) for k in floats}
            for k in floats:
                gs[k][~np.isfinite(ys[k])] = 0
            for name, x in xs.items():
                slopes = _slopes(xs, name, rng.normal(size=x.shape), run, gs)
                if not all(abs(s) <= 1e-9 for s in slopes):  # NaN of a changed shape included
                    return False
    except Exception:
        return False
    return True
