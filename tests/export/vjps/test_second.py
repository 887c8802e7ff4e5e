"""The rules are rules for what they emit, too: a sweep over a sweep has each operator's Hessian."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export.autodiff import swept
from onnxplain.export.check import Case, add_output, add_seeds, builder_of, finished
from onnxplain.export.operators import VJPS
from onnxplain.export.tensors import zeros_like
from onnxplain.reference.float64 import evaluator

from .check import drawn
from .test_table import KINDS

Array = np.ndarray
CASES: Mapping[str, st.SearchStrategy[Case]] = {
    name: cases for kind in KINDS for name, cases in getattr(kind, "CASES", {}).items()
}
QUICK = ("Conv", "LayerNormalization", "MatMul", "MaxPool", "Softmax", "Gelu", "GridSample")


def second_model(case: Case) -> onnx.ModelProto:
    """x0, …, the cotangents g0, … and directions v0, … in; gradients and Hessian products out."""
    model = case.forward_model()
    graph, op = model.graph, builder_of(model)
    wanted = list(graph.inputs)
    gradients = swept(op, add_seeds(model, case.seeded), wanted, VJPS)
    along: dict[ir.Value, ir.Value] = {}
    for i, (x, gx) in enumerate(zip(wanted, gradients, strict=True)):
        v = op.builder.input(f"v{i}", x.dtype, x.shape)
        if gx is not None:
            along[gx] = op.Add(along[gx], v) if gx in along else v
    products = swept(op, along, wanted, VJPS)
    graph.outputs[:] = []
    for name, found in (("gradient", gradients), ("product", products)):
        for i, (x, value) in enumerate(zip(wanted, found, strict=True)):
            add_output(model, zeros_like(op, x) if value is None else value, f"{name}{i}", like=x)
    return finished(model)


def check_second(case: Case) -> None:
    """The products are central differences of the gradients."""
    graph = evaluator(second_model(case))
    rng, xs = np.random.default_rng(0), case.arrays()
    vs = [rng.normal(size=x.shape) for x in xs]
    forward = evaluator(finished(case.forward_model()))
    ys = forward.run(None, {f"x{i}": x for i, x in enumerate(xs)})
    fixed = {f"g{j}": rng.normal(size=ys[k].shape) for j, k in enumerate(case.seeded)}
    fixed |= {f"v{i}": v for i, v in enumerate(vs)}

    def at(step: float) -> list[Array]:
        moved = {f"x{i}": x + step * v for i, (x, v) in enumerate(zip(xs, vs, strict=True))}
        found: list[Array] = graph.run(None, {**moved, **fixed})
        return found

    products = at(0.0)[len(xs) :]
    errors = []
    for step in (1e-4, 1e-6):  # where one crosses a kink, a shorter one may not
        slopes = [(a - b) / (2 * step) for a, b in zip(at(step), at(-step), strict=True)]
        pairs = zip(products, slopes[: len(xs)], strict=True)
        errors.append(max(_error(product, slope) for product, slope in pairs))
    assert min(errors) < 1e-4, str(case)


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max(initial=0) / (1e-2 + np.abs(expected).max(initial=0)))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.sweep) for name in CASES],
)
def test_a_sweep_over_a_sweep_is_the_hessian(name: str) -> None:
    @drawn(2 if name in QUICK else 10)
    @given(CASES[name])
    def each(case: Case) -> None:
        check_second(case)

    each()
