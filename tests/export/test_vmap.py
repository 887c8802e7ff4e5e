"""K targets from one forward pass: the same as K runs with one target each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript import OpBuilder

from onnxplain.contract.explain import MAP
from onnxplain.errors import SourceError
from onnxplain.export import METHODS, VJPS, pull_back
from onnxplain.export.backward import add_pullback
from onnxplain.export.check import builder_of, finished, forward_model, initializer
from onnxplain.export.methods.weighted import Pixels
from onnxplain.export.tensors import integers
from onnxplain.export.vmap import vmap
from onnxplain.reference.float64 import evaluate

from .vjps.check import close, runtime

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
    x = op.ConvTranspose(op.LeakyRelu(x), w(8, 4, 4, 4), strides=[4, 4])
    x = op.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])
    x = op.AveragePool(x, kernel_shape=[1, 2], strides=[1, 2])
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
    tokens = op.Transpose(
        op.Reshape(op.Conv(x, w(8, 3, 2, 2), strides=[2, 2]), [0, 8, 16]), perm=[0, 2, 1]
    )
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


def lookups(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Tokens chosen by the image, an index from the batch, einsum, windows rolled, running sums."""
    w = Weights(op, x.dtype)
    tokens = op.Conv(x, w(8, 3, 2, 2), strides=[2, 2])
    tokens = op.Transpose(op.Reshape(tokens, [0, 8, 16]), perm=[0, 2, 1])
    tokens = op.Gelu(op.LayerNormalization(tokens, w(8), w(8)), approximate="tanh")
    rolled = op.Concat(op.Slice(tokens, [5], [16], [1]), op.Slice(tokens, [0], [5], [1]), axis=1)
    scores = op.Einsum(tokens, rolled, w(8), equation="bid,bjd,d->bij")
    tokens = op.Einsum(op.Softmax(scores), rolled, equation="bij,bjd->bid")
    best, at = op.TopK(op.ReduceMax(tokens, [2], keepdims=0), [6], axis=1, _outputs=2)
    chosen = op.GatherND(tokens, op.Unsqueeze(at, [2]), batch_dims=1)
    first = op.Gather(op.Reshape(chosen, [-1]), op.Mul(op.Range(0, op.Size(best), 1), 8))
    summed = op.CumSum(op.Mul(chosen, op.Unsqueeze(best, [2])), -2, reverse=1)
    summed = op.Trilu(op.Mish(summed), 1, upper=0)
    x = op.Add(op.ReduceSum(summed, [1], keepdims=0), op.ReduceL1(op.Reshape(first, [-1, 6]), [1]))
    return op.MatMul(op.LpNormalization(x), w(8, CLASSES))


def dense(op: OpBuilder, x: ir.Value) -> ir.Value:
    """A Concat of more parts than shape inference looks at, as in a DenseNet's last blocks."""
    w = Weights(op, x.dtype)
    parts = [op.Conv(x, w(2, 3, 1, 1)) for _ in range(30)]
    x = op.GlobalAveragePool(op.Relu(op.Concat(*parts, axis=1)))
    return op.Gemm(op.Flatten(x), w(60, CLASSES))


NETWORKS: list[Network] = [
    *(pools_and_convolutions, shuffles, dense),
    *(attention, normalisations, lookups),
]


@functools.cache
def explain(network: Network, method: str, dtype: ir.DataType, several: bool) -> onnx.ModelProto:
    model = forward_model(lambda op, x: [network(op, x)], [["batch", *IMAGES.shape[1:]]], dtype)
    (image,) = model.graph.inputs
    chosen = METHODS[method]
    pixels = Pixels(np.array(-2.0), np.array(2.0))
    add_pullback(
        model,
        chosen,
        chosen.values({}),
        {"pullback": image},
        multi_target=several,
        pixels=pixels,
    )
    return finished(model)


RELEVANT = [pools_and_convolutions, shuffles, dense]
"""Those whose every operator has a relevance rule."""

ALIKE = ("lrp-epsilon-plus", "lrp-epsilon-plus-flat", "lrp-epsilon-alpha2-beta1")
"""Methods of whose rules others are made."""


@pytest.mark.parametrize(
    ("network", "method"),
    [
        (network, m.name)
        for network in NETWORKS
        for m in METHODS.values()
        if m.name not in ALIKE
        and MAP not in {part.kind for part in m.parts}
        and (m.relevance is None or network in RELEVANT)
    ],
)
def test_several_targets_equal_as_many_single_ones(network: Network, method: str):
    one, several = (explain(network, method, ir.DataType.DOUBLE, k) for k in (False, True))
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
    proto = explain(network, "gradient", ir.DataType.FLOAT, True)
    whole = runtime(proto, {"x0": IMAGES.astype(np.float32), "target": TARGETS})[1]
    feeds = {"x0": IMAGES[:N].astype(np.float32), "target": TARGETS[:N, :K]}
    close(runtime(proto, feeds)[1], whole[:N, :K], 1e-4, f"{N} images, {K} targets")


def test_the_forward_pass_is_not_repeated():
    """K reaches no node before the cotangents: as many convolutions as with one target."""

    def count(proto: onnx.ModelProto, *ops: str) -> int:
        return sum(node.op_type in ops for node in proto.graph.node)

    one, several = (
        explain(pools_and_convolutions, "excitation", ir.DataType.FLOAT, k) for k in (False, True)
    )
    for ops in (["Conv", "ConvTranspose"], ["Sigmoid"], ["Exp"], ["MaxPool"]):
        assert count(several, *ops) == count(one, *ops) > 0


# Rule by rule. Each is given a shape for every input; the first `mapped` of them get the axis K.


def vmapped(build: Callable[..., ir.Value], *shapes: list[int], mapped: int = 1) -> None:
    """`vmap` of the nodes that `build` makes equals running them K times."""
    model = forward_model(lambda op: [], [])
    op = builder_of(model)
    inputs = [op.builder.input(f"x{i}", ir.DataType.DOUBLE, s) for i, s in enumerate(shapes)]
    several = [
        op.builder.input(f"several{i}", ir.DataType.DOUBLE, ["K", *shapes[i]])
        for i in range(mapped)
    ]
    before = len(model.graph)
    y = build(op, *inputs)
    nodes = list(model.graph)[before:]
    K = op.Shape(several[0], start=0, end=1)
    found = vmap(op, nodes, dict(zip(inputs, several, strict=False)), K)[y]
    model.graph.outputs[:] = [op.Identity(y), op.Identity(found)]
    proto = finished(model)

    rng = np.random.default_rng(0)
    xs = {f"x{i}": rng.normal(size=shape) for i, shape in enumerate(shapes)}
    stacked = {f"several{i}": rng.normal(size=[3, *shapes[i]]) for i in range(mapped)}
    _, result = evaluate(proto, xs | stacked)
    for k in range(3):
        changed = {f"x{i}": stacked[f"several{i}"][k] for i in range(mapped)}
        expected, _ = evaluate(proto, xs | changed | stacked)
        np.testing.assert_allclose(result[k], expected, atol=1e-12)


@pytest.mark.parametrize("mapped", [1, 2])
@pytest.mark.parametrize(
    ("a", "b"), [([2, 3], [2, 3]), ([3], [2, 3]), ([2, 3], [3]), ([], [2, 3]), ([2, 1], [4, 1, 3])]
)
def test_operands_of_any_ranks_still_broadcast(a: list[int], b: list[int], mapped: int):
    vmapped(lambda op, x, y: op.Sub(x, y), a, b, mapped=mapped)
    vmapped(lambda op, x, y: op.Where(op.Greater(x, 0.0), y, x), a, b, mapped=mapped)


@pytest.mark.parametrize("mapped", [1, 2])
@pytest.mark.parametrize(("a", "b"), [([2, 3], [3, 4]), ([2, 3], [5, 3, 4]), ([5, 2, 3], [3, 4])])
def test_matrix_products(a: list[int], b: list[int], mapped: int):
    vmapped(lambda op, x, y: op.MatMul(x, y), a, b, mapped=mapped)
    vmapped(lambda op, y, x: op.MatMul(x, y), b, a, mapped=mapped)


def test_a_vector_times_a_matrix():
    vmapped(lambda op, x, y: op.MatMul(x, y), [3], [3, 4])
    vmapped(lambda op, y, x: op.MatMul(x, y), [3, 4], [3])


def test_a_vector_times_a_stack_of_matrices_is_refused_not_wrong():
    for build in (lambda op, x, y: op.MatMul(x, y), lambda op, x, y: op.MatMul(y, x)):
        with pytest.raises(SourceError, match="unsqueeze"):
            vmapped(build, [3], [2, 3, 3])


@pytest.mark.parametrize("ta", [0, 1])
@pytest.mark.parametrize("tb", [0, 1])
@pytest.mark.parametrize("mapped", [1, 2])
def test_gemm_with_either_operand_mapped(ta: int, tb: int, mapped: int):
    a, b = [[3, 2], [2, 3]][1 - ta], [[4, 3], [3, 4]][1 - tb]
    attributes = {"transA": ta, "transB": tb, "alpha": 0.5}
    vmapped(lambda op, x, y: op.Gemm(x, y, **attributes), a, b, mapped=mapped)
    if mapped == 1:
        vmapped(lambda op, y, x: op.Gemm(x, y, **attributes), b, a, mapped=mapped)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ([4, 3, 4], [0, -1]),
        ([4, 3, 4], [0, 0, 2, 2]),
        ([4, 3, 4], [-1]),
        ([4, 3, 4], [2, 2, 0, 3]),
        ([12, 4], [12, 0]),
        ([1, 1], []),
    ],
)
def test_reshape_copies_the_sizes_that_it_copied(given: list[int], shape: list[int]):
    """A 0 stands for the size at its own place, which the new axis moves by one."""
    vmapped(lambda op, x: op.Reshape(x, integers(op, np.array(shape))), given)


def test_reshape_to_a_shape_computed_from_another_value():
    vmapped(lambda op, x, y: op.Reshape(x, op.Shape(y)), [4, 3], [2, 6])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_operators_with_an_axis(axis: int):
    vmapped(lambda op, x, y: op.Concat(y, x, y, axis=axis), [2, 4], [2, 4])
    vmapped(lambda op, x, y: op.Concat(x, y, axis=axis), [2, 4], [2, 4], mapped=2)
    vmapped(lambda op, x: op.Gather(x, [1, 0, 1], axis=axis), [2, 4])
    vmapped(lambda op, x: op.Gather(x, 1, axis=axis), [2, 4])
    vmapped(lambda op, x: op.Split(x, [1, 3], axis=axis, _outputs=2)[1], [4, 4])
    vmapped(lambda op, x: op.Split(x, axis=axis, num_outputs=2, _outputs=2)[0], [4, 4])


@pytest.mark.parametrize("axes", [[0], [1, 2], [-1], [-3, 2]])
def test_operators_with_axes(axes: list[int]):
    for reduce in ("ReduceSum", "ReduceMean", "ReduceMax"):
        vmapped(lambda op, x, r=reduce: getattr(op, r)(x, axes), [2, 3, 4])
        vmapped(lambda op, x, r=reduce: getattr(op, r)(x, axes, keepdims=0), [2, 3, 4])
    vmapped(lambda op, x: op.Unsqueeze(x, axes), [2, 3])
    vmapped(lambda op, x: op.Squeeze(x, axes), [1, 1, 1])
    n = len(axes)
    vmapped(lambda op, x: op.Slice(x, [1] * n, [9] * n, axes), [2, 3, 4])
    vmapped(lambda op, x: op.Slice(x, [-1] * n, [-9] * n, axes, [-1] * n), [2, 3, 4])
    vmapped(lambda op, x: op.Pad(x, [1] * n + [2] * n, None, axes), [2, 3, 4])


def test_operators_with_no_axes_given_keep_to_the_axes_they_had():
    vmapped(lambda op, x: op.ReduceSum(x, keepdims=0), [2, 3])
    vmapped(lambda op, x: op.ReduceSum(x, noop_with_empty_axes=1), [2, 3])
    vmapped(lambda op, x: op.Squeeze(x), [1, 3, 1])
    vmapped(lambda op, x: op.Slice(x, [1], [2]), [2, 3])
    vmapped(lambda op, x: op.Pad(x, [1, 0, 0, 1]), [2, 3])
    vmapped(lambda op, x: op.Transpose(x), [2, 3])


def test_padding_names_every_axis_for_onnx_runtime_mistakes_it_otherwise():
    """Its transpose optimiser takes a Pad with `axes` for one without; see `tensors.pad_axis`."""
    model = forward_model(lambda op: [], [])
    op = builder_of(model)
    x = op.builder.input("x", ir.DataType.FLOAT, [2, 3])
    several = op.builder.input("several", ir.DataType.FLOAT, ["K", 2, 3])
    op.Pad(x, [1, 2], None, [1])
    nodes = list(model.graph)
    found = vmap(op, nodes, {x: several}, op.Shape(several, start=0, end=1))
    (pad,) = [found[node.outputs[0]].producer() for node in nodes if node.op_type == "Pad"]
    assert len(pad.inputs) == 2
    assert pad.inputs[1].const_value.numpy().tolist() == [0, 0, 1, 0, 0, 2]


def indices(op: OpBuilder, *at: Any) -> ir.Value:
    return integers(op, np.array(at))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_operators_with_indices(axis: int):
    vmapped(lambda op, x: op.GatherElements(x, indices(op, [1, 0], [0, 1]), axis=axis), [2, 2])
    for reduction in ("none", "add"):

        def put(op: OpBuilder, x: ir.Value, y: ir.Value, kind: str = reduction) -> ir.Value:
            at = indices(op, [1, 0], [0, 1])
            return op.ScatterElements(x, at, y, axis=axis, reduction=kind)

        vmapped(put, [2, 2], [2, 2])
        vmapped(put, [2, 2], [2, 2], mapped=2)
        vmapped(lambda op, y, x, put=put: put(op, x, y), [2, 2], [2, 2])


@pytest.mark.parametrize("batch", [0, 1])
def test_operators_with_tuples_of_indices(batch: int):
    vmapped(lambda op, x: op.GatherND(x, indices(op, [1], [0]), batch_dims=batch), [2, 2, 3])
    at = ([[1, 0]], [[0, 1]])
    vmapped(lambda op, x: op.GatherND(x, indices(op, *at), batch_dims=batch), [2, 2, 3, 2])


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize(("at", "shape"), [([1], [1, 3]), ([1, 2], [1])])
def test_scattering_by_tuples_of_indices(at: list[int], shape: list[int], reduction: str):
    def put(op: OpBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        return op.ScatterND(x, indices(op, at), y, reduction=reduction)

    vmapped(put, [2, 3], shape)
    vmapped(put, [2, 3], shape, mapped=2)
    vmapped(lambda op, y, x: put(op, x, y), shape, [2, 3])


def test_mapped_indices_are_refused_not_wrong():
    def gather(name: str) -> Callable[..., ir.Value]:
        return lambda op, x, y: getattr(op, name)(y, op.Cast(x, to=ir.DataType.INT64))

    for name in ("Gather", "GatherND"):
        with pytest.raises(SourceError, match=f"{name} .*by mapped indices"):
            vmapped(gather(name), [2, 1], [2, 1])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_sums(axis: int):
    vmapped(lambda op, x: op.CumSum(x, axis), [2, 4])
    vmapped(lambda op, x: op.CumSum(x, axis, exclusive=1, reverse=1), [2, 4])


@pytest.mark.parametrize("mapped", [1, 2])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij, jk -> kji", "ij,ji->"])
def test_an_einsum_gets_one_letter_more(equation: str, mapped: int):
    b = [3, 2]
    vmapped(lambda op, x, y: op.Einsum(x, y, equation=equation), [2, 3], b, mapped=mapped)
    vmapped(lambda op, y, x: op.Einsum(x, y, equation=equation), b, [2, 3], mapped=mapped)


def test_an_einsum_that_leaves_its_axes_unsaid_is_refused_not_wrong():
    with pytest.raises(SourceError, match="spell out"):
        vmapped(lambda op, x: op.Einsum(x, equation="...i->..."), [2, 3])


@pytest.mark.parametrize("axis", [0, -1])
def test_a_softmax_keeps_to_its_axis(axis: int):
    vmapped(lambda op, x: op.Softmax(x, axis=axis), [2, 3])
    vmapped(lambda op, x: op.LogSoftmax(x), [2, 3])


def test_a_triangle_is_that_of_the_last_two_axes():
    vmapped(lambda op, x: op.Trilu(x, 1, upper=0), [3, 4])


def test_operators_with_channels():
    vmapped(lambda op, x, w: op.Conv(x, w, pads=[1] * 4), [2, 3, 4, 4], [5, 3, 3, 3])
    vmapped(lambda op, x, w: op.ConvTranspose(x, w, strides=[2, 2]), [2, 3, 4, 4], [3, 5, 2, 2])
    vmapped(lambda op, x: op.SpaceToDepth(x, blocksize=2), [2, 3, 4, 4])
    vmapped(lambda op, x: op.Expand(x, [2, 1, 4]), [3, 1])


def test_a_cast_to_the_dtype_of_a_mapped_value():
    vmapped(lambda op, x, y: op.CastLike(y, x), [2], [3])
    vmapped(lambda op, x, y: op.Mul(x, op.CastLike(y, x)), [2, 3], [3])
    vmapped(lambda op, x, y: op.CastLike(x, y), [2], [3], mapped=2)


def test_what_does_not_depend_on_a_seed_is_not_repeated():
    model = forward_model(lambda op, x: [op.Exp(x)], [["batch", 3]])
    op = builder_of(model)
    (y,) = model.graph.outputs
    g = op.builder.input("g", ir.DataType.DOUBLE, ["batch", 3])
    several = op.builder.input("several", ir.DataType.DOUBLE, ["K", "batch", 3])
    before = len(model.graph)
    pull_back(op, {y: g}, model.graph.inputs[:1], VJPS)
    nodes = list(model.graph)[before:]
    found = vmap(op, nodes, {g: several}, op.Shape(several, start=0, end=1))
    assert set(found) == {g, *(node.outputs[0] for node in nodes)}
    assert y not in found


@pytest.mark.parametrize("shape", [[2, 3], None])
def test_what_a_loop_stacks_has_the_targets_first_where_its_rank_is_known(shape: list[int] | None):
    def looped(op: OpBuilder, x: ir.Value) -> ir.Value:
        number, going = ir.val("i", ir.DataType.INT64, []), ir.val("c", ir.DataType.BOOL, [])
        state = ir.val("s", ir.DataType.DOUBLE, shape)
        on, after, made = (
            ir.node("Identity", [going]), ir.node("Sin", [state]), ir.node("Exp", [state])
        )  # fmt: skip
        for node, value in ((on, going), (after, state), (made, state)):
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        nodes = [on, after, made]
        ends = [node.outputs[0] for node in nodes]
        opsets = op.builder.graph.opset_imports
        body = ir.Graph([number, going, state], ends, nodes=nodes, opset_imports=opsets, name="b")
        four = op.Constant(value=ir.tensor(np.array(4)))
        _, stack = op.builder.call_op("Loop", [four, None, x], {"body": body}, outputs=2)
        stack.type, stack.shape = x.type, None if shape is None else ir.Shape([None, *shape])
        return stack

    if shape is None:
        with pytest.raises(SourceError, match=r"the rank of .* is unknown"):
            vmapped(looped, [2, 3])
    else:
        vmapped(looped, shape)


def test_an_operator_without_a_batching_rule_is_an_error_that_names_it():
    with pytest.raises(SourceError, match=r"no batching rule for operator Det .*export with one"):
        vmapped(lambda op, x: op.Det(x), [2, 2])
