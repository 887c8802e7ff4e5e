"""What random graphs are made of: pieces of networks, every kind of operator among them.

A step takes a value, another one and a source of random numbers, and makes a value; all are
[batch, C, H, W], the batch dynamic. Weights are as real networks have them, so that values stay of
the order of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.random import Generator
from onnxscript import OpBuilder

from onnxplain.export.check import dtype_of, initializer
from onnxplain.export.tensors import integers, static

Step = Callable[[OpBuilder, ir.Value, ir.Value, Generator], ir.Value]


def weight(op: OpBuilder, x: ir.Value, array: np.ndarray) -> ir.Value:
    return initializer(op, array, dtype_of(x))


def linear(op: OpBuilder, x: ir.Value, rng: Generator, *shape: int) -> ir.Value:
    """A weight that keeps the scale of what it sums over, its second to last axis."""
    return weight(op, x, rng.normal(size=shape) / np.sqrt(shape[-2]))


def one_of(rng: Generator, *choices: Callable[[], ir.Value]) -> ir.Value:
    return choices[rng.integers(len(choices))]()


def convolve(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    channels = static(x, 1)[0]
    group = channels if rng.integers(2) else 1
    w = rng.normal(size=[2 * group if group > 1 else 3, channels // group, 2, 3]) / 2
    stride, dilation, p, q = rng.integers(1, [3, 3, 3, 3])
    pads = [int(p), 2, 1, int(q)]
    geometry = {"pads": pads, "strides": [int(stride), 1], "dilations": [int(dilation), 1]}
    return op.Conv(x, weight(op, x, w), group=group, **geometry)


def deconvolve(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    w = weight(op, x, rng.normal(size=[static(x, 1)[0], 2, 3, 2]) / 2)
    return op.ConvTranspose(x, w, strides=[1, 2], pads=[1, 0, 1, 1])


def join(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    """As two branches meet: side by side if they fit, else the one gates or shifts the other."""
    if static(x, 1) == static(y, 1):
        name = rng.choice(["Add", "Mul", "Sub", "Max", "Min", "Mean"])
        return getattr(op, str(name))(x, y)
    if static(x, 2) == static(y, 2):
        return op.Concat(x, y, x, axis=1)
    gate = op.Sigmoid(op.ReduceMean(y, [1, 2, 3]))
    return one_of(
        rng,
        lambda: op.Mul(x, gate),
        lambda: op.Div(x, op.Add(gate, 1.0)),
        lambda: op.Where(op.Greater(gate, 0.5), op.Mul(x, gate), x),
        lambda: op.Pow(op.Softplus(x), op.Add(gate, 1.0)),
    )


def normalise(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    channels, height, width = static(x, 1)

    def numbers(*shape: int) -> ir.Value:
        return weight(op, x, rng.uniform(0.5, 1, size=shape))

    epsilon = float(rng.choice([0.1, 1e-3, 1e-5]))

    def spelled_out() -> ir.Value:
        centred = op.Sub(x, op.ReduceMean(x, [2, 3]))
        variance = op.ReduceMean(op.Pow(centred, 2.0), [2, 3])
        return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))

    def by_root_mean_square() -> ir.Value:
        square = op.ReduceMean(op.Mul(x, x), [1])
        return op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(square, epsilon))))

    def channels_last() -> ir.Value:
        last = op.Transpose(x, perm=[0, 2, 3, 1])
        normal = op.LayerNormalization(last, numbers(channels), epsilon=0.1)
        return op.Transpose(normal, perm=[0, 3, 1, 2])

    return one_of(
        rng,
        spelled_out,
        by_root_mean_square,
        channels_last,
        lambda: op.LRN(x, size=3, alpha=0.5),
        lambda: op.BatchNormalization(x, *(numbers(channels) for _ in range(4))),
        lambda: op.Div(x, op.Add(op.ReduceL2(x, [1]), 0.5)),
        lambda: op.LayerNormalization(
            x, numbers(height, width), numbers(height, width), axis=2, epsilon=0.1
        ),
        lambda: op.InstanceNormalization(x, numbers(channels), numbers(channels), epsilon=0.1),
        lambda: op.Mul(op.LpNormalization(op.Add(x, 0.1), axis=1, p=2), 2.0),
    )


def bend(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    names = [
        *("Tanh", "Sigmoid", "Softplus", "Softsign", "Sin", "Cos", "Erf", "Atan", "Asinh", "Gelu"),
        *("Mish", "Relu", "LeakyRelu", "Elu", "Selu", "HardSwish", "HardSigmoid", "Abs", "Shrink"),
    ]
    name = str(rng.choice(names))
    return one_of(
        rng,
        *[lambda: getattr(op, name)(x)] * 4,
        lambda: op.Gelu(x, approximate="tanh"),
        lambda: op.Clip(x, -0.7, 0.9),
        lambda: op.PRelu(x, weight(op, x, rng.uniform(size=[static(x, 1)[0], 1, 1]))),
        lambda: op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 0.5)),
        lambda: op.Tan(op.Mul(op.Tanh(x), 0.7)),
    )


def keep_off_zero(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    """An ε between what comes near 0 and a logarithm, which is scaled down as a loss is."""
    epsilon = float(10.0 ** -rng.integers(3, 9))
    # Not of a Sigmoid: that of ONNX Runtime is off by 1e-7, also where it is as small.
    small = one_of(
        rng,
        lambda: op.Relu(x),
        lambda: op.Clip(op.Mul(x, 5.0), 0.0, 6.0),
        lambda: op.Exp(op.Neg(op.Mul(op.Mul(x, x), 4.0))),
    )
    kept = one_of(
        rng,
        lambda: op.Add(small, epsilon),
        lambda: op.Max(small, epsilon),
        lambda: op.Clip(small, epsilon, 5.0),
        lambda: op.Div(1.0, op.Add(op.Abs(op.Log(op.Add(small, epsilon))), 1.0)),
    )
    return op.Mul(op.Log(kept), 0.1)


def attend(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    """Over the pixels; by rows; over the channels; the latter by Einsum. Masked at times."""
    channels, height, width = static(x, 1)
    pixels = height * width

    def over_pixels() -> ir.Value:
        tokens = op.Transpose(op.Reshape(x, [0, channels, pixels]), perm=[0, 2, 1])
        heads, wide = 2, 3
        qkv = op.MatMul(tokens, linear(op, x, rng, channels, 3 * heads * wide))
        qkv = op.Transpose(op.Reshape(qkv, [0, pixels, 3, heads, wide]), perm=[2, 0, 3, 1, 4])
        q, k, v = (op.Gather(qkv, i, axis=0) for i in range(3))
        scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), wide**-0.5)
        bias = weight(op, x, rng.normal(size=[heads, pixels, pixels]))
        found = op.MatMul(op.Softmax(op.Add(scores, bias)), v)
        together = op.Reshape(op.Transpose(found, perm=[0, 2, 1, 3]), [0, pixels, heads * wide])
        mixed = op.MatMul(together, linear(op, x, rng, heads * wide, channels))
        mixed = op.Reshape(op.Transpose(mixed, perm=[0, 2, 1]), [0, channels, height, width])
        return op.Add(x, mixed)

    def by_rows() -> ir.Value:
        scores = op.MatMul(x, op.Transpose(x, perm=[0, 1, 3, 2]))
        mask = np.triu(np.full([height, height], -50.0), 1)
        return op.MatMul(op.Softmax(op.Add(scores, weight(op, x, mask)), axis=-1), x)

    def over_channels() -> ir.Value:
        scores = op.Einsum(x, x, equation="bchw,bdhw->bcd")
        weights = op.Softmax(op.Mul(scores, 1.0 / pixels), axis=1)
        return op.Einsum(weights, x, equation="bcd,bd...->bc...")

    return one_of(rng, over_pixels, by_rows, over_channels)


def contract(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    channels, height, width = static(x, 1)
    return one_of(
        rng,
        lambda: op.Einsum(x, linear(op, x, rng, channels, 3), equation="bchw,cd->bdhw"),
        lambda: op.Einsum(x, linear(op, x, rng, 1, width), equation="b...w,vw->b...v"),
        lambda: (
            op.Einsum(x, x, linear(op, x, rng, channels, 3), equation="bchw,bcwh,cd->bdhw")
            if height == width
            else op.Einsum(x, equation="bchw->bwch")
        ),
        lambda: op.MatMul(x, linear(op, x, rng, width, 3)),
        lambda: (
            op.Unsqueeze(
                op.Gemm(op.Flatten(x, axis=3), linear(op, x, rng, 2, width), transB=1), [2, 3]
            )
            if channels * height == 1
            else op.MatMul(linear(op, x, rng, height, height), x)
        ),
        lambda: op.Unsqueeze(op.MatMul(x, weight(op, x, rng.normal(size=[width]))), [3]),
    )


def look_up(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    """By indices that are known, or found in the image, or counted from the batch."""
    channels, height, width = static(x, 1)

    def at(n: int, *shape: int) -> ir.Value:
        return integers(op, rng.integers(-n, n, size=shape))

    def apart(n: int) -> ir.Value:
        """So that equals do not tie: which of them is chosen would be for rounding to say."""
        return weight(op, x, np.arange(n) / 7)

    def best_columns() -> ir.Value:
        score = op.Add(op.ReduceSum(y, [1, 2], keepdims=0), apart(static(y, 3)[0]))
        best = op.ArgMax(score, axis=1, keepdims=0)
        return op.Unsqueeze(
            op.GatherND(x, op.Unsqueeze(op.Min(best, channels - 1), [1]), batch_dims=1), [1]
        )

    def top() -> ir.Value:
        k = int(rng.integers(1, width + 1))
        return op.TopK(x, [k], axis=3, _outputs=2)[0]

    def top_channels() -> ir.Value:
        score = op.Add(op.ReduceMean(x, [2, 3]), op.Unsqueeze(apart(channels), [1, 2]))
        values, best = op.TopK(score, [max(channels // 2, 1)], axis=1, _outputs=2)
        there = op.Expand(best, [1, 1, height, width])
        return op.Mul(op.GatherElements(x, there, axis=1), op.Sigmoid(values))

    def counted() -> ir.Value:
        """The first channel of every image, by its place in the whole batch."""
        n = op.Squeeze(op.Shape(x, start=0, end=1), [0])
        starts = op.Mul(op.Range(0, n, 1), channels * height * width)
        pixels = integers(op, np.arange(height * width))
        places = op.Add(op.Unsqueeze(starts, [1]), pixels)
        return op.Reshape(op.Gather(op.Reshape(x, [-1]), places), [-1, 1, height, width])

    def put_elements() -> ir.Value:
        """Every row of images adds to another one."""
        there = op.Expand(at(height, 1, 1, height, 1), op.Shape(x))
        return op.ScatterElements(x, there, op.Tanh(x), axis=2, reduction="add")

    def put_rows() -> ir.Value:
        turned = op.Transpose(x, perm=[1, 2, 0, 3])
        places = integers(
            op, np.stack([np.arange(channels), rng.permutation(channels) % height], 1)
        )
        rows = op.Mul(op.GatherND(turned, places), 2.0)
        return op.Transpose(op.ScatterND(turned, places, rows), perm=[2, 0, 1, 3])

    return one_of(
        rng,
        best_columns,
        top,
        top_channels,
        counted,
        put_elements,
        put_rows,
        lambda: op.Gather(x, [0, channels - 1, 0], axis=1),
        lambda: op.Reshape(op.Gather(x, at(width, 2, 2), axis=3), [0, channels, height, 4]),
        lambda: op.Unsqueeze(op.Gather(x, 0, axis=2), [2]),
    )


def move(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    channels, height, width = static(x, 1)

    def rolled() -> ir.Value:
        by = int(rng.integers(height))
        ahead, behind = (op.Slice(x, [a], [b], [2]) for a, b in ((by, height), (0, by)))
        return op.Concat(ahead, behind, axis=2) if by else x

    def windows() -> ir.Value:
        """Merged, as of a Swin transformer: pixels of every other row and column together."""
        x_ = op.Pad(x, [0, 0, 0, 0, 0, 0, height % 2, width % 2])
        parts = [op.Slice(x_, [i, j], [99, 99], [2, 3], [2, 2]) for i in (0, 1) for j in (0, 1)]
        return op.Concat(*parts, axis=1)

    def shuffled() -> ir.Value:
        twice = op.Reshape(op.Concat(x, y if static(x, 1) == static(y, 1) else x, axis=1),
                           [0, 2, channels, height, width])  # fmt: skip
        return op.Reshape(op.Transpose(twice, perm=[0, 2, 1, 3, 4]), [0, -1, height, width])

    def gated() -> ir.Value:
        halves = op.Split(op.Concat(x, x, axis=3), axis=3, num_outputs=2, _outputs=2)
        return op.Mul(halves[1], op.Exp(op.Neg(op.Mul(halves[0], halves[0]))))

    return one_of(
        rng,
        rolled,
        windows,
        shuffled,
        gated,
        lambda: op.Transpose(x, perm=[0, 2, 3, 1]),
        lambda: op.Reshape(x, [0, height, -1, channels]),
        lambda: op.Slice(x, [-1, 0], [-100, 100], [3, 2], [-1, 2]),
        lambda: op.Pad(x, [1, 0, 0, 1], None, [2, 3], mode="edge"),
        lambda: op.Tile(x, [1, 2, 1, 2]),
        lambda: op.DepthToSpace(op.Tile(x, [1, 4, 1, 1]), blocksize=2, mode="CRD"),
        lambda: op.SpaceToDepth(op.Tile(x, [1, 1, 2, 2]), blocksize=2),
        lambda: op.Trilu(x, 1, upper=0),
        lambda: op.Mul(op.CumSum(x, int(rng.integers(1, 4)), reverse=int(rng.integers(2))), 0.5),
        lambda: op.Expand(op.ReduceMean(x, [1]), [1, 2, 1, 1]),
    )


def resize(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    mode = str(rng.choice(["linear", "cubic", "nearest"]))
    scales = [1.0, 1.0, *(float(s) for s in rng.choice([0.5, 1.0, 2.0], size=2))]
    if min(static(x, 2)) < 2 or scales == [1.0] * 4:
        scales = [1.0, 1.0, 2.0, 2.0]
    if mode == "nearest":
        return op.Resize(
            x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )  # fmt: skip
    return op.Resize(x, None, scales, mode=mode)


def sample(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    """At places that depend on the image too, as a spatial transformer does."""
    _, height, width = static(x, 1)
    base = rng.uniform(-1, 1, size=[1, height, width, 2])
    shift = op.Mul(op.Unsqueeze(op.ReduceMean(op.Tanh(y), [1, 2, 3], keepdims=0), [1, 2, 3]), 0.3)
    padding = str(rng.choice(["zeros", "border"]))
    return op.GridSample(x, op.Add(weight(op, x, base), shift), padding_mode=padding)


def pool(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    geometry = {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "strides": [2, 1]}
    ceil, padded = (int(n) for n in rng.integers(2, size=2))
    return one_of(
        rng,
        lambda: op.AveragePool(x, ceil_mode=ceil, count_include_pad=padded, **geometry),
        lambda: op.MaxPool(x, ceil_mode=ceil, **geometry),
        lambda: op.LpPool(op.Add(x, 0.05), **geometry),
        lambda: op.Add(x, op.GlobalAveragePool(op.Mul(x, x))),
        lambda: op.Sub(x, op.GlobalMaxPool(x)),
    )


def reduce(op: OpBuilder, x: ir.Value, y: ir.Value, rng: Generator) -> ir.Value:
    """A statistic over some axes, by itself or as a gate."""
    axes = sorted({1 + int(i) for i in rng.integers(3, size=2)})
    name = str(
        rng.choice(["Sum", "Mean", "Max", "Min", "LogSumExp", "L1", "SumSquare", "L2", "Prod"])
    )
    found = getattr(op, f"Reduce{name}")(op.Tanh(x), axes)
    return one_of(
        rng,
        lambda: op.Tanh(found),
        lambda: op.Mul(x, op.Sigmoid(found)),
        lambda: op.Mul(x, op.HardSigmoid(op.Relu(found))),
        lambda: op.Sub(x, op.Tanh(found)),
    )


def recur(op: OpBuilder, x: ir.Value, _: ir.Value, rng: Generator) -> ir.Value:
    """Over the rows; the batch is the second axis there."""
    width = static(x, 1)[2]
    rows = op.Transpose(op.ReduceMean(x, [1], keepdims=0), perm=[1, 0, 2])
    name, gates = ("LSTM", 4) if rng.integers(2) else ("GRU", 3)
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    ways, hidden = 1 + (direction == "bidirectional"), 2
    w, r = (linear(op, x, rng, ways, gates * hidden, n) for n in (width, hidden))
    options: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if name == "GRU":
        options["linear_before_reset"] = 1
    states = op.builder.call_op(name, [rows, w, r], options, version=op.version, outputs=1)
    return op.Transpose(states, perm=[2, 1, 0, 3])


STEPS: list[Step] = [
    *(convolve, deconvolve, join, normalise, bend, attend, contract, look_up, move),
    *(resize, sample, pool, reduce, recur, keep_off_zero),
]
