"""However an operation is spelled, its explanation is the canonical spelling's."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import onnx_ir as ir
import pytest
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.export import pull_back
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.finish import clean
from onnxplain.export.methods import METHODS

from .test_patterns import ACTIVATIONS, ROOTS, Spelling, graph_of, layer_norm, run

ROOT = math.sqrt(2)
SIZE = 6
ZERO = np.zeros([1, 4, SIZE], np.float32)


def heaviside(op: OpBuilder, x: ir.Value) -> ir.Value:
    """x · torch.heaviside(x, 0)."""
    step = op.Where(op.Less(x, 0.0), 0.0, 1.0)
    return op.Mul(x, op.Where(op.Equal(x, 0.0), 0.0, step))


def stacked(op: OpBuilder, x: ir.Value) -> ir.Value:
    """torch.stack([x, torch.zeros_like(x)]).amax(0)."""
    zeros = op.Expand(0.0, op.Shape(x))
    both = op.Concat(op.Unsqueeze(x, [0]), op.Unsqueeze(zeros, [0]), axis=0)
    return op.ReduceMax(both, [0], keepdims=0)


def bounded(op: OpBuilder, x: ir.Value, top: float) -> ir.Value:
    """As hardtanh and clamp are written, which keeps numbers within half precision."""
    return op.Clip(x, 0.0, top)


def clipped(op: OpBuilder, x: ir.Value, low: float, high: float) -> ir.Value:
    return op.Min(op.Max(x, low), high)


def pow3(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Pow(x, op.Constant(value_float=3.0))


def by_flattening(op: OpBuilder, x: ir.Value) -> ir.Value:
    """ONNX's own function body."""
    flat = op.Reshape(x, [-1, SIZE])
    mean = op.ReduceMean(flat, [1])
    square = op.ReduceMean(op.Mul(flat, flat), [1])
    variance = op.Sub(square, op.Mul(mean, mean))
    normal = op.Div(op.Sub(flat, mean), op.Sqrt(op.Add(variance, 1e-5)))
    scaled = op.Add(op.Mul(normal, scale(op)), shift(op))
    return op.Reshape(scaled, op.Shape(x))


def scale(op: OpBuilder) -> ir.Value:
    return op.Constant(value=ir.tensor(np.linspace(0.5, 1, SIZE, dtype=np.float32)))


def shift(op: OpBuilder) -> ir.Value:
    return op.Constant(value=ir.tensor(np.linspace(-1, 1, SIZE, dtype=np.float32)))


def affine(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Add(op.Mul(x, scale(op)), shift(op))


def by_instances(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Every row an instance, as converters without LayerNormalization have it."""
    rows = op.Reshape(x, [1, -1, SIZE])
    count = op.Shape(rows, start=1, end=2)
    normal = op.InstanceNormalization(rows, op.Expand(1.0, count), op.Expand(0.0, count))
    return op.Reshape(affine(op, normal), op.Shape(x))


def by_rsqrt_scale(op: OpBuilder, x: ir.Value) -> ir.Value:
    """tf.nn.batch_normalization of tf.nn.moments, as Keras writes its LayerNormalization."""
    mean = op.ReduceMean(x, [-1])
    d = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(d, d), [-1])
    slope = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, 1e-5))), scale(op))
    return op.Add(op.Mul(x, slope), op.Sub(shift(op), op.Mul(mean, slope)))


SPELLINGS: dict[str, tuple[Spelling, list[Spelling]]] = {
    "Relu": (
        lambda op, x: op.Relu(x),
        [
            *(spell for i, spell in enumerate(ACTIVATIONS["Relu"]) if i not in (2, 5, 12, 13)),
            lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Constant(value=ir.tensor(ZERO))),
            lambda op, x: op.Max(op.Add(x, 0.0), op.Constant(value=ir.tensor(ZERO))),
            lambda op, x: op.Max(x, op.Constant(value=ir.tensor(ZERO))),
            lambda op, x: op.Clip(x, 0.0),
            lambda op, x: op.PRelu(x, 0.0),
            lambda op, x: op.Mul(x, op.Clip(op.Sign(x), 0.0, 1.0)),
            heaviside,
            lambda op, x: op.Max(x, op.Mul(x, 0.0)),
            stacked,
            *(partial(bounded, top=top) for top in (1e4, 65504.0, 1e6, 1e30)),
        ],
    ),
    "Gelu": (
        lambda op, x: op.Gelu(x),
        [
            *ACTIVATIONS["Gelu"][:5],
            lambda op, x: op.Mul(x, op.Mul(0.5, op.Sub(1.0, op.Erf(op.Div(op.Neg(x), ROOT))))),
            lambda op, x: op.Div(op.Mul(x, op.Add(op.Erf(op.Div(x, ROOT)), 1.0)), 2.0),
            lambda op, x: op.Add(op.Mul(0.5, x), op.Mul(op.Mul(0.5, x), op.Erf(op.Div(x, ROOT)))),
            lambda op, x: op.Mul(op.Div(op.Add(op.Erf(op.Mul(x, ROOT / 2)), 1.0), 2.0), x),
        ],
    ),
    "Gelu by tanh": (
        lambda op, x: op.Gelu(x, approximate="tanh"),
        [
            *ACTIVATIONS["Gelu"][5:],
            lambda op, x: op.Mul(
                x,
                op.Sigmoid(op.Mul(1.5957691216, op.Add(x, op.Mul(0.044715, pow3(op, x))))),
            ),
            lambda op, x: op.Mul(
                op.Mul(0.5, x),
                op.Add(
                    1.0,
                    op.Tanh(
                        op.Mul(math.sqrt(2 / math.pi), op.Add(x, op.Mul(0.044715, pow3(op, x))))
                    ),
                ),
            ),
        ],
    ),
    "SiLU": (
        lambda op, x: op.Mul(x, op.Sigmoid(x)),
        [
            lambda op, x: op.Mul(op.Sigmoid(x), x),
            lambda op, x: op.Mul(x, op.Sigmoid(op.Mul(x, 1.0))),
            lambda op, x: op.Div(x, op.Add(op.Exp(op.Neg(x)), 1.0)),
            lambda op, x: op.Mul(x, op.Reciprocal(op.Add(1.0, op.Exp(op.Neg(x))))),
            lambda op, x: op.Mul(x, op.Div(1.0, op.Add(1.0, op.Exp(op.Mul(x, -1.0))))),
            lambda op, x: op.Mul(x, op.Add(op.Mul(op.Tanh(op.Mul(x, 0.5)), 0.5), 0.5)),
            lambda op, x: op.Sub(x, op.Mul(x, op.Sigmoid(op.Neg(x)))),
        ],
    ),
    "HardSwish": (
        lambda op, x: op.HardSwish(x),
        [
            *ACTIVATIONS["HardSwish"],
            lambda op, x: op.Mul(x, op.HardSigmoid(x, alpha=0.1666667, beta=0.5)),
            lambda op, x: op.Div(op.Mul(clipped(op, op.Add(x, 3.0), 0.0, 6.0), x), 6.0),
            lambda op, x: op.Mul(x, clipped(op, op.Div(op.Add(x, 3.0), 6.0), 0.0, 1.0)),
            lambda op, x: op.Mul(x, op.Clip(op.Add(op.Mul(x, 0.16666667), 0.5), 0.0, 1.0)),
        ],
    ),
    "LayerNorm": (
        lambda op, x: op.LayerNormalization(x, scale(op), shift(op)),
        [
            *(
                lambda op, x, root=root: affine(op, layer_norm(op, x, [-1], root))
                for root in ROOTS.values()
            ),
            by_rsqrt_scale,
            by_flattening,
            by_instances,
        ],
    ),
}


def fixed(op: OpBuilder, *shape: int) -> ir.Value:
    """Numbers that the shape alone decides."""
    numbers = np.random.default_rng(sum(shape)).normal(size=shape)
    return op.Constant(value=ir.tensor(numbers.astype(np.float32)))


@cache
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=[3, 2, 4, SIZE]).astype(np.float32) * 2


def explained(spell: Spelling) -> list[np.ndarray]:
    """What a spelling between two linear maps computes, and each method's pullback of it."""

    def network(op: OpBuilder, x: ir.Value) -> ir.Value:
        z = op.MatMul(x, fixed(op, SIZE, SIZE))
        return op.MatMul(spell(op, z), fixed(op, SIZE, 3))

    model = canonicalise(graph_of(network, (2, 4, SIZE)), classifier=False).model
    builder = GraphBuilder(model.graph)
    builder.push_module("pullback")
    (x,), (logits,) = model.graph.inputs, model.graph.outputs
    seed = builder.op.Expand(fixed(builder.op, 3), builder.op.Shape(logits))
    seed.shape, seed.dtype = logits.shape, logits.dtype
    for method in ("excitation", "semantic"):
        (pullback,) = pull_back(builder.op, {logits: seed}, [x], METHODS[method].rules())
        y = builder.op.Identity(pullback)
        y.shape, y.dtype = x.shape, x.dtype
        model.graph.outputs.append(y)
    model.graph.sort()
    clean(model)
    return run(model, image())


@cache
def canonical(name: str) -> list[np.ndarray]:
    return explained(SPELLINGS[name][0])


@pytest.mark.parametrize(
    ("name", "i"), [(name, i) for name, (_, every) in SPELLINGS.items() for i in range(len(every))]
)
def test_a_spelling_is_explained_as_the_canonical_one(name: str, i: int):
    found = explained(SPELLINGS[name][1][i])
    for ours, expected in zip(found, canonical(name), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


def test_there_are_as_many_spellings_as_frameworks_write():
    counts = {name: len(every) for name, (_, every) in SPELLINGS.items()}
    counts["Gelu"] += counts.pop("Gelu by tanh")
    least = {"Relu": 12, "Gelu": 8, "SiLU": 6, "HardSwish": 6, "LayerNorm": 5}
    assert all(counts[name] >= least[name] for name in least)
