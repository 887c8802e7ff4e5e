"""Calls of the custom operators, each with what the body in standard operators says in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from onnxplain.contract.explain import KERNELS_DOMAIN
from onnxplain.export.check import Case, add_output, builder_of, finished, forward_model
from onnxplain.export.windows import window_of
from onnxplain.kernels import bodies
from onnxplain.kernels.functions import window_attributes
from onnxplain.kernels.windows import Window
from onnxplain.reference.float64 import evaluate

DTYPES: Mapping[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
LAST_PLACE = {"float32": 2**-20, "float16": 2**-10, "bfloat16": 2**-7}
"""How far a result may be off, relatively or by that part of large ones; cotangents are near 1."""

T = 0.3
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-40, 300.0, -300.0])


@dataclass(frozen=True)
class Call:
    """One call of an operator, in a graph that takes and gives float32 whatever it computes in."""

    operator: str
    dtype: str
    inputs: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]
    attributes: Mapping[str, Sequence[int]]

    def model(self) -> onnx.ModelProto:
        """Its axes are open."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[self.dtype]))
        nodes, names = [], [f"x{i}" for i in range(len(self.inputs))]
        for name in names:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=element))
        outputs = [f"y{i}" for i in range(len(self.expected))]
        nodes.append(
            helper.make_node(
                self.operator,
                [f"{name}_cast" for name in names],
                [f"{name}_cast" for name in outputs],
                domain=KERNELS_DOMAIN,
                **self.attributes,
            )
        )
        for name in outputs:
            nodes.append(helper.make_node("Cast", [f"{name}_cast"], [name], to=TensorProto.FLOAT))
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * array.ndim)
            for name, array in zip([*names, *outputs], [*self.inputs, *self.expected], strict=True)
        ]
        graph = helper.make_graph(nodes, "call", values[: len(names)], values[len(names) :])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(KERNELS_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def check(self, found: Sequence[np.ndarray]) -> None:
        for result, wanted in zip(found, self.expected, strict=True):
            assert result.shape == wanted.shape
            with np.errstate(over="ignore"):
                stored = wanted.astype(DTYPES[self.dtype]).astype(np.float32)
            finite = np.abs(stored[np.isfinite(stored)])
            scale = max(np.quantile(finite, 0.95) if finite.size else 0.0, 0.01)
            near = LAST_PLACE[self.dtype]
            np.testing.assert_allclose(result, stored, rtol=near, atol=near * scale)


def rounded(array: Any, dtype: str) -> np.ndarray:
    """float32 numbers that the dtype holds too."""
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(DTYPES[dtype]).astype(np.float32)


def by_body(build: Callable[..., Any], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """`build(op, *inputs)`, a body, in float64."""

    def outputs(op: Any, *values: ir.Value) -> list[ir.Value]:
        made = build(op, *values)
        return [made] if isinstance(made, ir.Value) else list(made)

    feeds = {f"x{i}": array.astype(np.float64) for i, array in enumerate(arrays)}
    with np.errstate(all="ignore"):
        return tuple(
            evaluate(finished(forward_model(outputs, [list(a.shape) for a in arrays])), feeds)
        )


def gate(operator: str, dtype: str, shape: Sequence[int], targets: Sequence[int] = ()) -> Call:
    body = {"SoftGate": bodies.soft_gate, "NormalGate": bodies.normal_gate}[operator]
    rng = np.random.default_rng(0)
    z = _with_special(rng.normal(scale=2.0, size=shape))
    g = _with_special(rng.normal(size=[*targets, *shape]), 3)
    inputs = tuple(rounded(array, dtype) for array in (z, g, T))
    return Call(operator, dtype, inputs, by_body(body, *inputs), {})


def random_pool(seed: int, axes: int) -> Case:
    """A max-pool of any geometry."""
    rng = np.random.default_rng(seed)
    kernel, strides, dilations = rng.integers([[1], [1], [1]], [[5], [5], [4]], [3, axes])
    pads = rng.integers(0, np.tile(kernel, 2))
    reach = (kernel - 1) * dilations + 1
    attributes = {"dilations": dilations.tolist(), "pads": pads.tolist()}
    if rng.random() < 0.5:
        # Shape inference before opset 22 counts windows that start in the padding at the end.
        strides = np.minimum(strides, reach - pads[axes:])
        attributes["ceil_mode"] = 1
    attributes |= {"kernel_shape": kernel.tolist(), "strides": strides.tolist()}
    size = reach + rng.integers(0, 9, axes)
    return Case("MaxPool", [rng.normal(size=[2, 3, *size])], attributes)


def pool(case: Case, held: bool, dtype: str, targets: int = 0, special: bool = False) -> Call:
    x = np.array(case.inputs[0])
    if special:
        x[0, 0] = _with_special(x[0, 0])
    x = rounded(x, dtype)
    model = forward_model(case.build, [list(x.shape)])
    (value,), (y,) = model.graph.inputs, model.graph.outputs
    window = window_of(y.producer(), value, y)
    g = np.random.default_rng(1).normal(size=[*([targets] * (targets > 0)), *y.shape])
    g, temperature = rounded(g, dtype), rounded(T, dtype)
    body = finished(_pool_model(model, window, held, float(temperature)))
    with np.errstate(all="ignore"):
        each = [
            evaluate(body, {"x0": x.astype(np.float64), "g": one.astype(np.float64)})[0]
            for one in g.reshape(-1, *y.shape)
        ]
    name = "WeightedPoolGrad_1" if held else "SoftMaxPoolGrad_32"
    inputs = (x, g, temperature)
    return Call(name, dtype, inputs, (np.concatenate(each),), window_attributes(window))


def _pool_model(model: ir.Model, window: Window, held: bool, temperature: float) -> ir.Model:
    """x0 and g in, the body's gradient out."""
    body = bodies.weighted_pool_grad if held else bodies.soft_max_pool_grad
    op, (x,), (y,) = builder_of(model), model.graph.inputs, model.graph.outputs
    g = op.builder.input("g", ir.DataType.DOUBLE, y.shape)
    model.graph.outputs[:] = []
    add_output(model, body(op, x, g, window, temperature), "pullback", like=x)
    return model


def _with_special(array: np.ndarray, shift: int = 0) -> np.ndarray:
    """Infinities, what is no number, and the like among the first elements."""
    flat = array.ravel()
    count = min(len(flat), len(SPECIAL))
    flat[:count] = np.roll(SPECIAL, shift)[:count]
    return flat.reshape(array.shape)


SHAPES: list[tuple[list[int], list[int]]] = [
    ([2, 3, 5, 7], []),
    ([1], []),
    ([0, 3], []),
    ([33, 17, 31], []),  # more than one thread's part, and no multiple of a vector
    ([], []),
    ([2, 700], [3]),
    ([2, 3], [0]),
]


@dataclass(frozen=True)
class Maker:
    """How a call is made, when a test asks for it, and the elements of its first input."""

    elements: int
    make: Callable[[], Call]


def makers() -> dict[str, Maker]:
    """Every operator in every dtype, with odd sizes, nothing at all, and what is no number."""
    found = {}
    for dtype, kind, (shape, targets) in product(DTYPES, ("Soft", "Normal"), SHAPES):
        make = partial(gate, f"{kind}Gate", dtype, shape, targets)
        found[f"{kind}Gate, {dtype}, {shape} × {targets}"] = Maker(math.prod(shape), make)
    for i in range(36):
        case, dtype = random_pool(i, 1 + i % 3), list(DTYPES)[i // 3 % 3]
        held, targets = i % 2 == 0, 2 * (i % 5 == 0)
        make = partial(pool, case, held, dtype, targets, special=i % 4 == 0)
        name = f"pool {i}, {dtype}, {case}, × {targets}, held: {held}"
        found[name] = Maker(np.size(case.inputs[0]), make)
    wide = Case(
        "MaxPool",
        [np.random.default_rng(0).normal(size=[1, 2, 50, 47])],
        {"kernel_shape": [4, 4], "dilations": [15, 15], "strides": [1, 1]},
    )
    for held in (False, True):  # more windows touch a tile than a GPU's shared memory has room for
        make = partial(pool, wide, held, "float32")
        found[f"wide pool, held: {held}"] = Maker(np.size(wide.inputs[0]), make)
    return found


MAKERS = makers()


@cache
def call_of(name: str) -> Call:
    return MAKERS[name].make()
