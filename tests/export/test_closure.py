"""What a rule emits has a rule itself: the sweep may go over the nodes of a sweep."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxscript import OpBuilder
from torch.nn import functional

from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import add_output, builder_of, finished, forward_model, initializer
from onnxplain.export.operators import row_of
from onnxplain.export.vmap import BATCHING
from onnxplain.reference.float64 import evaluate

ROOT = Path(__file__).parents[2]
NO_FLOATS = {"And", "ArgMax", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less"} | {
    "LessOrEqual", "Shape", "Size",
}  # fmt: skip
"""They give no floats: no cotangent arrives at them."""
FORWARD_ALONE = {"OneHot", "Range", "Shape", "Size", "Unique"}
"""They are asked of the forward pass, which several targets share."""


def emitted() -> set[str]:
    """The operators that rules, methods and the sweep itself emit: `op.Name` in their sources, or
    `self.op.Name`, `inner.Name`; or given by their names to what calls them."""
    folders = ("export/vjps", "export/methods", "kernels")
    files = [file for folder in folders for file in (ROOT / folder).glob("*.py")]
    files += [ROOT / "export" / f"{name}.py" for name in SWEEP]
    parts = [part for file in files for part in ast.walk(ast.parse(file.read_text("utf-8")))]
    names = {p.attr for p in parts if isinstance(p, ast.Attribute) and _last(p.value) in BUILDERS}
    calls = (p for p in parts if isinstance(p, ast.Call) and _last(p.func) in CALLERS)
    given = {a.value for p in calls for a in p.args if isinstance(a, ast.Constant)}
    return {name for name in names | given if isinstance(name, str) and onnx.defs.has(name)}


SWEEP = ("autodiff", "lower", "stretched", "subgraphs", "tensors", "windows")
BUILDERS, CALLERS = ("op", "_op", "inner"), ("call", "_call", "call_op")


def _last(part: ast.expr) -> str | None:
    """`name` of `name` and of `….name`."""
    return part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", None)


def test_what_rules_emit_has_a_rule_and_a_batching_rule() -> None:
    names = emitted()
    assert len(names) > 50
    assert names - set(VJPS) == NO_FLOATS | {"Constant"}  # which takes nothing
    batched = {n for n in names if row_of(n).batching or row_of(n).axes in BATCHING}
    assert names - batched == FORWARD_ALONE | {"Constant"}


W = np.random.default_rng(0).normal(size=[3, 2, 3, 3])
HEAD = np.random.default_rng(1).normal(size=[3, 4])
SCALE, BIAS = np.array([0.5, 2.0, -1.0]), np.array([0.1, -0.2, 0.3])


def ours(op: OpBuilder, x: object) -> list[object]:
    weight, head, scale, bias = (initializer(op, a, x.dtype) for a in (W, HEAD, SCALE, BIAS))
    z = op.Conv(x, weight, strides=[2, 2], pads=[1, 1, 1, 1])
    z = op.Mul(op.Tanh(z), op.Sigmoid(z))
    mean = op.ReduceMean(z, [-2, -1], keepdims=0)
    normal = op.LayerNormalization(mean, scale, bias)
    return [op.LogSoftmax(op.MatMul(op.Gelu(normal), head), axis=-1)]


def theirs(x: torch.Tensor) -> torch.Tensor:
    weight, head, scale, bias = map(torch.tensor, (W, HEAD, SCALE, BIAS))
    z = functional.conv2d(x, weight, stride=2, padding=1)
    mean = (z.tanh() * z.sigmoid()).mean((-2, -1))
    normal = functional.layer_norm(mean, [3], scale, bias)
    return torch.log_softmax(functional.gelu(normal) @ head, -1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_product_of_a_hessian_and_a_vector_is_that_of_torch_func(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, g, v = rng.normal(size=[2, 2, 5, 6]), rng.normal(size=[2, 4]), rng.normal(size=[2, 2, 5, 6])
    model = forward_model(ours, [[2, 2, 5, 6]])
    op = builder_of(model)
    (y,), image = model.graph.outputs, model.graph.inputs[0]
    first = op.builder.input("g", y.dtype, [2, 4])
    (gradient,) = pull_back(op, {y: first}, [image], VJPS)
    second = op.builder.input("v", image.dtype, image.shape)
    (product,) = pull_back(op, {gradient: second}, [image], VJPS)
    model.graph.outputs[:] = []
    add_output(model, product, "product", like=image)
    (found,) = evaluate(finished(model), {"x0": x, "g": g, "v": v})

    slope = torch.func.grad(lambda at: (theirs(at) * torch.tensor(g)).sum())
    _, expected = torch.func.jvp(slope, (torch.tensor(x),), (torch.tensor(v),))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
