"""One check for every rule: the graph that it makes is the transposed Jacobian of the operator.

In float64, for random g and v, ⟨vjp(g), v⟩ is ⟨g, J v⟩ by central differences of the operator's own
forward. In float32, ONNX Runtime finds the same forward, the same cotangents after lowering, and
the same for several g at once (`export.vmap`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from hypothesis import HealthCheck, settings
from onnx_ir.passes import common
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.export import VJPS, composites, pull_back
from onnxplain.export.finish import clean
from onnxplain.export.lower import lower
from onnxplain.export.vmap import vmap
from onnxplain.reference.float64 import evaluator

Array = np.ndarray
TARGETS = 2


def drawn(examples: int = 20) -> settings:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Case:
    """An operator, its inputs (an absent one is None) and attributes.

    The inputs listed in `active` are differentiated, and the first axis of those in `dynamic` is
    dynamic; all others are initializers. `seeded` are the outputs that a cotangent arrives at.
    `opset` is for operators newer than the canonical form's.
    """

    op: str
    inputs: Sequence[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    active: Sequence[int] = (0,)
    dynamic: Sequence[int] = (0,)
    outputs: int = 1
    seeded: Sequence[int] = (0,)
    opset: int = 20

    def arrays(self) -> list[Array]:
        return [np.asarray(self.inputs[i]) for i in self.active]

    def __str__(self) -> str:
        shapes = [None if x is None else list(np.shape(x)) for x in self.inputs]
        return f"{self.op}{shapes} {self.attributes}"

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        given = dict(zip(self.active, values, strict=True))
        inputs = [
            given.get(i, None if x is None else initializer(op, x, values[0].dtype))
            for i, x in enumerate(self.inputs)
        ]
        domain, _, name = self.op.rpartition("::")
        opset = op.builder.opset(domain, 1) if domain else op
        made = opset.builder.call_op(
            name, inputs, dict(self.attributes), domain, opset.version, self.outputs
        )
        return [made] if isinstance(made, ir.Value) else list(made)


def initializer(op: OpBuilder, array: Array, dtype: ir.DataType) -> ir.Value:
    array = np.asarray(array)
    if array.dtype == np.float64:
        array = array.astype(dtype.numpy())
    name = f"weight_{len(op.builder.graph.initializers)}"
    return op.builder.initializer(ir.tensor(array, name=name), name)


def forward_model(
    build: Callable[..., Sequence[ir.Value]],
    shapes: Sequence[Sequence[int | str]],
    dtype: ir.DataType = ir.DataType.DOUBLE,
    opset: int = 20,
) -> ir.Model:
    """A graph with the inputs x0, x1, … and what `build(op, *inputs)` returns as its outputs."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="forward")
    builder = GraphBuilder(graph)
    inputs = [builder.input(f"x{i}", dtype, shape) for i, shape in enumerate(shapes)]
    outputs = build(builder.op, *inputs)
    graph.outputs.extend(outputs)
    for i, y in enumerate(outputs):
        y.name = f"y{i}"
    for value in list(graph.initializers.values()):
        value.name = f"source.{value.name}"  # as the canonical form has it
    model = ir.Model(graph, ir_version=10)
    composites.define(model)
    common.ShapeInferencePass()(model)
    return model


def builder_of(model: ir.Model) -> OpBuilder:
    """The one builder of what comes after the forward pass."""
    if "builder" not in model.meta:
        model.meta["builder"] = GraphBuilder(model.graph)
        model.meta["builder"].push_module("pullback")
    return model.meta["builder"].op


def add_output(model: ir.Model, value: ir.Value, name: str, like: ir.Value | None = None) -> None:
    """An output, through an Identity so that any value will do; it has the shape of `like`."""
    value = builder_of(model).Identity(value)
    value.name = name
    if like is not None:
        value.shape = ir.Shape(like.shape)
        value.dtype = like.dtype
    model.graph.outputs.append(value)


def finished(model: ir.Model) -> onnx.ModelProto:
    model.graph.sort()
    clean(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def runtime(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def shapes_of(case: Case) -> list[list[int | str]]:
    return [
        ["batch", *x.shape[1:]] if i in case.dynamic else list(x.shape)
        for i, x in zip(case.active, case.arrays(), strict=True)
    ]


def directional(
    run: Callable[..., Sequence[Array]], xs: list[Array], i: int, v: Array, step: float
) -> list[Array]:
    """J v for input i: central differences at two steps, extrapolated to none."""

    def slope(h: float) -> list[Array]:
        up, down = (run(*xs[:i], xs[i] + s * h * v, *xs[i + 1 :]) for s in (1, -1))
        return [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]

    fine, coarse = slope(step / 2), slope(step)
    return [(4 * a - b) / 3 for a, b in zip(fine, coarse, strict=True)]


def close(found: Array, expected: Array, tolerance: float, what: str) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 0.01)
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what
    )


def check_vjp(
    case: Case, float32: bool = True, tolerance: float = 1e-7, steps: Sequence[float] = (1e-3,)
) -> list[Array]:
    """The check; returns the cotangents of the active inputs for a g of normal numbers.

    Differences by one of the `steps` must agree: where one crosses a kink, a shorter one may not.
    """
    xs = case.arrays()
    rng = np.random.default_rng(0)
    forward_proto = finished(forward_model(case.build, shapes_of(case), opset=case.opset))
    forward_run = evaluator(forward_proto)

    def run(*values: Array) -> list[Array]:
        ys = forward_run.run(None, {f"x{i}": x for i, x in enumerate(values)})
        return [ys[k] for k in case.seeded]

    ys = run(*xs)
    gs = [[rng.normal(size=y.shape) for y in ys] for _ in range(TARGETS)]

    # The rule, in float64, against central differences.
    backward_run = evaluator(backward_model(case))
    found = []
    for k in range(TARGETS):
        result = backward_run.run(None, feeds_of(xs, gs[k]))
        found.append(result)
        for i, (x, cotangent) in enumerate(zip(xs, result, strict=True)):
            assert cotangent.shape == x.shape
            v = rng.normal(size=x.shape)
            size = np.linalg.norm(cotangent) * np.linalg.norm(v)
            for step in steps:
                slopes = zip(gs[k], directional(run, xs, i, v, step), strict=True)
                expected = sum(float((g * jv).sum()) for g, jv in slopes)
                scale = max(size, abs(expected))
                error = abs(float((cotangent * v).sum()) - expected)
                if error <= tolerance * scale + 1e-10:
                    break
            else:
                raise AssertionError(f"{case}, input {i}: {error / scale}")

    if float32:
        check_float32(case, xs, ys, gs, found)
    return found[0]


def backward_model(case: Case, dtype: ir.DataType = ir.DataType.DOUBLE) -> onnx.ModelProto:
    """Active inputs x0, … and cotangents g0, … in, the cotangents of the active inputs out."""
    model = forward_model(case.build, shapes_of(case), dtype, case.opset)
    graph = model.graph
    wanted = list(graph.inputs)
    seeds = add_seeds(model, case.seeded)
    cotangents = pull_back(builder_of(model), seeds, wanted, VJPS)
    graph.outputs[:] = []
    for i, (cotangent, x) in enumerate(zip(cotangents, wanted, strict=True)):
        add_output(model, cotangent, f"cotangent{i}", like=x)
    return finished(model)


def cotangent_of(case: Case, *gs: Array) -> Array:
    """The cotangent of the first active input, given those of the outputs; nothing is checked."""
    dtype = ir.DataType.from_numpy(case.arrays()[0].dtype)
    return evaluator(backward_model(case, dtype)).run(None, feeds_of(case.arrays(), gs))[0]


def add_seeds(
    model: ir.Model, seeded: Sequence[int], prefix: str = "g"
) -> dict[ir.Value, ir.Value]:
    graph = model.graph
    builder = builder_of(model).builder
    return {
        graph.outputs[k]: builder.input(
            f"{prefix}{j}", graph.outputs[k].dtype, graph.outputs[k].shape
        )
        for j, k in enumerate(seeded)
    }


def feeds_of(xs: Sequence[Array], gs: Sequence[Array]) -> dict[str, Array]:
    return {f"x{i}": x for i, x in enumerate(xs)} | {f"g{j}": g for j, g in enumerate(gs)}


def check_float32(
    case: Case, xs: list[Array], ys: list[Array], gs: list[list[Array]], found: list[list[Array]]
) -> None:
    """As ONNX Runtime has it: forward, and cotangents for all g at once, lowered."""
    model = forward_model(case.build, shapes_of(case), ir.DataType.FLOAT, case.opset)
    graph = model.graph
    graph.outputs[:] = [graph.outputs[k] for k in case.seeded]
    op = builder_of(model)
    wanted = list(graph.inputs)
    several = [
        op.builder.input(f"g{j}", y.dtype, ["targets", *(y.shape or [])])
        for j, y in enumerate(graph.outputs)
    ]
    seeds = {
        y: op.Squeeze(op.Slice(g, [0], [1], [0]), [0])
        for y, g in zip(graph.outputs, several, strict=True)
    }
    head = len(graph)
    cotangents = pull_back(op, seeds, wanted, VJPS)
    backward = list(graph)[head:]
    K = op.Shape(several[0], start=0, end=1)
    mapped = vmap(op, backward, dict(zip(seeds.values(), several, strict=True)), K)
    lower(op, list(graph)[head:])
    for i, (cotangent, x) in enumerate(zip(cotangents, wanted, strict=True)):
        value = mapped[cotangent]
        add_output(model, value, f"cotangent{i}")
        graph.outputs[-1].shape = ir.Shape(["targets", *(x.shape or [])])
    proto = finished(model)
    stacked = [np.stack(of_output) for of_output in zip(*gs, strict=True)]
    feeds = {k: v.astype(np.float32) for k, v in feeds_of(xs, stacked).items()}
    results = runtime(proto, feeds)
    for y, expected in zip(results, ys, strict=False):
        close(y, expected, 1e-4, f"{case}: the forward pass in float32")
    for i, cotangent in enumerate(results[len(ys) :]):
        expected = np.stack([result[i] for result in found])
        close(cotangent, expected, 1e-3, f"{case}: {TARGETS} cotangents at once, in float32")


def distinct(rng: np.random.Generator, shape: Sequence[int], spread: float = 3.0) -> Array:
    """Numbers between ±spread, evenly apart, none of them 0: for operators with a kink or a tie."""
    count = int(np.prod(shape))
    steps = rng.permutation(count) - count // 2 + 0.5
    return (steps * 2 * spread / max(count, 1)).reshape(shape)
