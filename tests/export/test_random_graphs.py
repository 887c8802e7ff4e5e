"""Chains and branches of smooth operators, put together at random, have the right gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnxscript import OpBuilder

from onnxplain.export.tensors import static

from .vjps.check import Case, check_vjp, drawn, initializer

Step = Callable[[OpBuilder, ir.Value, ir.Value, np.random.Generator], ir.Value]
"""(op, x, another value, rng) → a value; both are [batch, C, H, W]."""


def weight(op: OpBuilder, x: ir.Value, array: np.ndarray) -> ir.Value:
    return initializer(op, array, x.dtype)


def convolve(op: OpBuilder, x: ir.Value, _: ir.Value, rng: np.random.Generator) -> ir.Value:
    channels = static(x, 1)[0]
    group = channels if rng.integers(2) else 1
    w = rng.normal(size=[2 * group if group > 1 else 3, channels // group, 2, 3]) / 2
    stride, dilation, p, q = rng.integers(1, [3, 3, 3, 3])
    pads = [int(p), 2, 1, int(q)]
    geometry = {"pads": pads, "strides": [int(stride), 1], "dilations": [int(dilation), 1]}
    return op.Conv(x, weight(op, x, w), group=group, **geometry)


def deconvolve(op: OpBuilder, x: ir.Value, _: ir.Value, rng: np.random.Generator) -> ir.Value:
    w = weight(op, x, rng.normal(size=[static(x, 1)[0], 2, 3, 2]) / 2)
    return op.ConvTranspose(x, w, strides=[1, 2], pads=[1, 0, 1, 1])


def join(op: OpBuilder, x: ir.Value, y: ir.Value, rng: np.random.Generator) -> ir.Value:
    """As two branches meet: side by side if they fit, else the one gates or shifts the other."""
    if static(x, 1) == static(y, 1):
        return getattr(op, ["Add", "Mul", "Sub"][rng.integers(3)])(x, y)
    if static(x, 2) == static(y, 2):
        return op.Concat(x, y, x, axis=1)
    gate = op.Sigmoid(op.ReduceMean(y, [1, 2, 3]))
    return op.Mul(x, gate) if rng.integers(2) else op.Div(x, op.Add(gate, 1.0))


def normalise(op: OpBuilder, x: ir.Value, _: ir.Value, rng: np.random.Generator) -> ir.Value:
    match rng.integers(4):
        case 0:
            return op.LRN(x, size=3, alpha=0.5)
        case 1:
            scale, bias, mean, variance = rng.uniform(0.5, 1, size=[4, *static(x, 1, 2)])
            values = (weight(op, x, v) for v in (scale, bias, mean, variance))
            return op.BatchNormalization(x, *values)
        case 2:
            return op.Div(x, op.Add(op.ReduceL2(x, [1]), 0.5))
        case _:
            centred = op.Sub(x, op.ReduceMean(x, [2, 3]))
            variance = op.ReduceMean(op.Pow(centred, 2.0), [2, 3])
            return op.Div(centred, op.Sqrt(op.Add(variance, 0.1)))


def bend(op: OpBuilder, x: ir.Value, _: ir.Value, rng: np.random.Generator) -> ir.Value:
    name = rng.choice(["Tanh", "Sigmoid", "Softplus", "Sin", "Erf"])
    return getattr(op, str(name))(x)


def attend(op: OpBuilder, x: ir.Value, y: ir.Value, rng: np.random.Generator) -> ir.Value:
    weights = op.Softmax(op.MatMul(x, op.Transpose(x, perm=[0, 1, 3, 2])), axis=-1)
    return op.MatMul(weights, x)


def move(op: OpBuilder, x: ir.Value, y: ir.Value, rng: np.random.Generator) -> ir.Value:
    c, h, _ = static(x, 1)
    match rng.integers(8):
        case 0:
            return op.Transpose(x, perm=[0, 2, 3, 1])
        case 1:
            return op.Reshape(x, [0, h, -1, c])
        case 2:
            return op.Slice(x, [-1, 0], [-100, 100], [3, 2], [-1, 2])
        case 3:
            return op.Gather(x, [0, c - 1, 0], axis=1)
        case 4:
            return op.Pad(x, [1, 0, 0, 1], None, [2, 3], mode="edge")
        case 5:
            halves = op.Split(op.Concat(x, x, axis=3), axis=3, num_outputs=2, _outputs=2)
            return op.Mul(halves[1], op.Exp(op.Neg(op.Mul(halves[0], halves[0]))))
        case 6:
            return op.Resize(x, None, [1.0, 1.0, 2.0, 1.5], mode="linear")
        case _:
            return op.Unsqueeze(op.ReduceLogSumExp(x, [1], keepdims=0), [1])


def average(op: OpBuilder, x: ir.Value, _: ir.Value, rng: np.random.Generator) -> ir.Value:
    modes = {name: int(rng.integers(2)) for name in ("ceil_mode", "count_include_pad")}
    return op.AveragePool(x, kernel_shape=[2, 2], pads=[1, 0, 0, 1], strides=[2, 1], **modes)


STEPS: list[Step] = [convolve, deconvolve, join, normalise, bend, attend, move, average]


@dataclass
class Plan(Case):
    """Steps, each from two of the values so far, by their distance from the last one."""

    steps: Sequence[tuple[Step, int, int, int]] = ()

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        made = [*values]
        for step, i, j, seed in self.steps:
            x, y = (made[-1 - k % len(made)] for k in (i, j))
            result = step(op, x, y, np.random.default_rng(seed))
            if np.prod(static(result, 1)) <= 500:
                made.append(result)
        return [op.Mul(made[-1], 1.0), op.ReduceSum(op.Tanh(made[len(made) // 2]), [1, 2, 3])]

    def __str__(self) -> str:
        return " ".join(f"{step.__name__}({i}, {j}, {seed})" for step, i, j, seed in self.steps)


plans = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 3), st.integers(0, 99)),
    min_size=4,
    max_size=8,
)


@settings(drawn(40), phases=[Phase.generate])  # a plan takes minutes to shrink
@given(plans, st.integers(0, 99))
def test_a_random_graph_has_the_gradient_that_differences_find(plan, seed):
    x = np.random.default_rng(seed).normal(size=[2, 2, 4, 4])
    check_vjp(Plan("", [x], outputs=2, seeded=[0, 1], steps=plan), tolerance=1e-6)
