"""K targets from one forward pass: the same as K runs with one target each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export import METHODS, VJPS, pull_back
from onnxplain.export.pipeline import add_pullback
from onnxplain.export.vmap import vmap

from .vjps.check import builder_of, close, finished, forward_model, initializer, runtime
from .vjps.float64 import evaluate

CLASSES = 4
IMAGES = np.random.default_rng(0).normal(size=[3, 3, 8, 8])
TARGETS = np.array([[0, 3, -1, 1], [2, -2, 0, 0], [1, -1, 3, 2]])

Network = Callable[[OpBuilder, ir.Value], ir.Value]


class Weights:
    """Fresh constants of a network, the same each time it is built."""

    def __init__(self, op: OpBuilder, dtype: ir.DataType):
        self.op, self.dtype, self.rng = op, dtype, np.random.default_rng(1)

    def __call__(self, *shape: int) -> ir.Value:
        return initializer(self.op, self.rng.normal(size=shape), self.dtype)

    def positive(self, *shape: int) -> ir.Value:
        return initializer(self.op, self.rng.uniform(0.5, 1, size=shape), self.dtype)


def pools_and_convolutions(op: OpBuilder, x: ir.Value) -> ir.Value:
    w = Weights(op, x.dtype)
    x = op.Conv(x, w(8, 3, 3, 3), w(8), pads=[1] * 4)
    x = op.MaxPool(op.Relu(x), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = op.Conv(x, w(8, 1, 3, 3), group=8, strides=[2, 2], pads=[1] * 4)
    x = op.AveragePool(op.Clip(x, 0.0, 6.0), kernel_shape=[2, 2], ceil_mode=1)
    x = op.ConvTranspose(op.LeakyRelu(x), w(8, 4, 2, 2), strides=[2, 2])
    x = op.Flatten(op.GlobalAveragePool(x))
    return op.Gemm(x, w(4, CLASSES), w(CLASSES), alpha=0.5)


def shuffles(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Concat, Split with a part unused, Slice, Pad, Transpose, Gather, Reshape with 0 and -1."""
    w = Weights(op, x.dtype)
    a, _, c = op.Split(op.Conv(x, w(6, 3, 1, 1)), [2, 1, 3], axis=1, _outputs=3)
    x = op.Concat(a, c, a, axis=-3)
    x = op.Slice(x, [7, -1], [-100, 0], [2, 3], [-2, -1])
    x = op.Pad(op.Mul(x, x), [0, 1, 0, 2], None, [1, 3], mode="reflect")
    x = op.Gather(x, [3, 0, 3, 1], axis=1)
    x = op.Reshape(op.Transpose(x, perm=[0, 2, 3, 1]), [0, 2, 2, -1])
    x = op.Squeeze(op.Unsqueeze(x, [1]), [1])
    x = op.DepthToSpace(op.SpaceToDepth(x, blocksize=2), blocksize=2, mode="CRD")
    return op.Gemm(op.Flatten(x), w(CLASSES, 160), transB=1)


def attention(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Softmax, products of two mapped operands, LayerNorm spelled out, GELU by erf."""
    w = Weights(op, x.dtype)
    tokens = op.Transpose(op.Reshape(op.Conv(x, w(8, 3, 2, 2), strides=[2, 2]), [0, 8, 16]), perm=[0, 2, 1])
    centred = op.Sub(tokens, op.ReduceMean(tokens, [-1]))
    variance = op.ReduceMean(op.Mul(centred, centred), [-1])
    tokens = op.Add(op.Mul(op.Div(centred, op.Sqrt(op.Add(variance, 1e-5))), w(8)), w(8))
    q, k, v = op.Split(op.MatMul(tokens, w(8, 24)), axis=-1, num_outputs=3, _outputs=3)
    weights = op.Softmax(op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 2, 1])), 0.3), axis=-1)
    x = op.MatMul(weights, v)
    x = op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, 0.7)), 1.0))
    return op.Gemm(op.ReduceMean(x, [1], keepdims=0), w(8, CLASSES), w(CLASSES))


def normalisations(op: OpBuilder, x: ir.Value) -> ir.Value:
    """LRN, BatchNormalization, resizing, gates, norms, and everything that broadcasts."""
    w = Weights(op, x.dtype)
    x = op.Conv(x, w(4, 3, 3, 3))
    x = op.BatchNormalization(x, w(4), w(4), w(4), w.positive(4))
    x = op.LRN(x, size=3, alpha=0.5)
    x = op.Resize(x, None, [1.0, 1.0, 0.5, 2.0], mode="linear")
    gate = op.HardSigmoid(op.ReduceMean(x, [2, 3]))
    x = op.Mul(op.HardSwish(x), gate)
    x = op.Add(op.PRelu(x, w(4, 1, 1)), op.Expand(op.GlobalMaxPool(x), [1, 1, 3, 12]))
    x = op.Max(op.Where(op.Greater(x, 0.0), op.Exp(op.Neg(x)), op.Softplus(x)), w(4, 1, 1))
    x = op.Div(x, op.Add(op.ReduceL2(x, [1]), 1.0))
    x = op.Concat(
        op.ReduceMax(x, [2, 3], keepdims=0),
        op.ReduceLogSumExp(x, [-1, -2], keepdims=0),
        op.ReduceSumSquare(x, [2, 3], keepdims=0),
        op.Pow(op.ReduceSum(x, [2, 3], keepdims=0), 2.0),
        axis=1,
    )
    return op.MatMul(op.LogSoftmax(op.Tanh(x), axis=1), w(16, CLASSES))


NETWORKS: list[Network] = [pools_and_convolutions, shuffles, attention, normalisations]


def explain(
    network: Network, method: str, dtype: ir.DataType, several: bool, temperature: float | None
) -> onnx.ModelProto:
    model = forward_model(lambda op, x: [network(op, x)], [["batch", *IMAGES.shape[1:]]], dtype)
    add_pullback(model, METHODS[method], temperature, multi_target=several)
    return finished(model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_several_targets_equal_as_many_single_ones(network: Network, method: str):
    T = METHODS[method].temperature
    one, several = (explain(network, method, ir.DataType.DOUBLE, k, T) for k in (False, True))
    (found,) = evaluate(several, {"x0": IMAGES, "target": TARGETS})[1:]
    assert found.shape == (3, 4, *IMAGES.shape[1:])
    for k in range(TARGETS.shape[1]):
        logits, expected = evaluate(one, {"x0": IMAGES, "target": TARGETS[:, k]})
        assert logits.shape == (3, CLASSES)
        close(found[:, k], expected, 1e-9, f"target {k}")
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("N", "K"), [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_batch_and_targets_are_both_dynamic(network: Network, N: int, K: int):
    """In ONNX Runtime, one graph for all."""
    proto = explain(network, "gradient", ir.DataType.FLOAT, True, None)
    whole = runtime(proto, {"x0": IMAGES.astype(np.float32), "target": TARGETS})[1]
    feeds = {"x0": IMAGES[:N].astype(np.float32), "target": TARGETS[:N, :K]}
    close(runtime(proto, feeds)[1], whole[:N, :K], 1e-4, f"{N} images, {K} targets")


def test_the_forward_pass_is_not_repeated():
    """K reaches no node before the cotangents: as many convolutions as with one target."""

    def count(proto: onnx.ModelProto, *ops: str) -> int:
        return sum(node.op_type in ops for node in proto.graph.node)

    one, several = (
        explain(pools_and_convolutions, "excitation", ir.DataType.FLOAT, k, 0.3)
        for k in (False, True)
    )
    for ops in (["Conv", "ConvTranspose"], ["Sigmoid"], ["Exp"], ["MaxPool"]):
        assert count(several, *ops) == count(one, *ops) > 0


def mapped(build: Callable[..., ir.Value], *shapes: list[int], which: int = 1) -> onnx.ModelProto:
    """`build` of the inputs, the first `which` of them with the axis K before all others."""
    model = forward_model(lambda op, *xs: [op.Identity(x) for x in xs], [])
    op = builder_of(model)
    inputs = [op.builder.input(f"x{i}", ir.DataType.DOUBLE, shape) for i, shape in enumerate(shapes)]
    several = [
        op.builder.input(f"several{i}", ir.DataType.DOUBLE, ["K", *shape])
        for i, shape in enumerate(shapes[:which])
    ]
    start = len(model.graph)
    y = build(op, *inputs)
    nodes = list(model.graph)[start:]
    K = op.Shape(several[0], start=0, end=1)
    found = vmap(op, nodes, dict(zip(inputs, several, strict=False)), K)[y]
    assert y.shape is not None
    model.graph.outputs[:] = [op.Identity(y), op.Identity(found)]
    return finished(model)
