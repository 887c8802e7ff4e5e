"""Is a rule right? Its cotangents against central differences of the operator, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder
from onnxplain.errors import InputError, NoRuleError, RuleError
from onnxplain.export import composites
from onnxplain.export.autodiff import pull_back
from onnxplain.export.finish import clean, import_domains
from onnxplain.export.operators import VJPS
from onnxplain.export.shapes import infer_shapes
from onnxplain.options import check_type

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = Callable[[Mapping[str, Array]], Sequence[Array]]


def check_vjp(
    operator: str,
    inputs: Sequence[npt.ArrayLike | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    active: Sequence[int] = (0,),
    dynamic: Sequence[int] = (0,),
    outputs: int = 1,
    seeded: Sequence[int] = (0,),
    opset: int = 20,
    operators: Sequence[type[OpRun]] = (),
    steps: Sequence[float] = (1e-3,),
    tolerance: float = 1e-7,
) -> list[Array]:
    """Check the rule that `register_vjp` gave an operator, on one call of it.

    For random g and v, ⟨rule(g), v⟩ is ⟨g, J v⟩, by central differences of what ONNX's reference
    evaluator makes of the operator.

    Args:
        operator: its name, `"domain::Name"` outside the standard domain.
        inputs: of the call, None for one that is absent; floats are taken as float64.
        attributes: of the call.
        active: the indices of the inputs that are differentiated. All others are constants.
        dynamic: of these, those whose first axis is of open size, as a batch is.
        outputs: how many the operator has.
        seeded: the indices of those that a cotangent arrives at.
        opset: the version of the standard operators.
        operators: implementations, each an `onnx.reference.op_run.OpRun`, of what is not ONNX's
            own: the operator, and those that its rule emits.
        steps: of the differences. One of them must agree: where one crosses a kink, a shorter one
            may not.
        tolerance: of the difference, relative to ‖rule(g)‖ · ‖v‖.

    Returns:
        The cotangents of the active inputs, for a g of normal numbers (seed 0).

    Raises:
        NoRuleError: the operator has no rule, or none for an active input.
        RuleError: the rule is wrong; the message says for which input, and by how much.
        InputError: nothing to check, an index of no input or output, an active input that is no
            array of floats, or steps that are not positive numbers.
    """
    from onnx.reference import ReferenceEvaluator

    if operator not in VJPS:
        raise NoRuleError(f"no rule for operator {operator}; register_vjp gives it one")

    def evaluate(model: onnx.ModelProto) -> Run:
        evaluator = ReferenceEvaluator(model, new_ops=list(operators))
        return lambda feeds: evaluator.run(None, dict(feeds))

    arrays = [None if x is None else _widened(np.asarray(x)) for x in inputs]
    _check_indices("active", active, len(arrays), "input")
    _check_indices("seeded", seeded, outputs, "output")
    check_type("steps", steps, Sequence[float])
    if not len(steps) or not all(0 < step < np.inf for step in steps):
        raise InputError(f"steps must be one or more positive numbers, not {list(steps)}")
    for i in active:
        x = arrays[i]
        given = "absent" if x is None else str(x.dtype)
        if given != "float64":
            raise InputError(f"input {i} is {given}: what is differentiated is an array of floats")
    case = Case(operator, arrays, dict(attributes or {}), active, dynamic, outputs, seeded, opset)
    return check(case, evaluate, steps, tolerance).cotangents[0]


def _check_indices(name: str, given: Sequence[int], count: int, what: str) -> None:
    """Raise InputError unless these are indices of the `count` inputs or outputs, each once."""
    check_type(name, given, Sequence[int])
    if not len(given):
        raise InputError(f"{name} is empty: list at least one {what} of the operator's")
    for i in given:
        if not 0 <= i < count:
            raise InputError(f"{name} lists {what} {i}, where the {what}s are 0 to {count - 1}")
    if len(set(given)) < len(given):
        raise InputError(f"{name} lists an {what} twice: {list(given)}")


@dataclass
class Case:
    """A call of an operator: its inputs (an absent one is None) and attributes.

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

    def __str__(self) -> str:
        shapes = [None if x is None else list(np.shape(x)) for x in self.inputs]
        return f"{self.op}{shapes} {self.attributes}"

    def arrays(self) -> list[Array]:
        """The active inputs."""
        return [np.asarray(self.inputs[i]) for i in self.active]

    def shapes(self) -> list[list[int | str]]:
        """Theirs in the graph."""
        return [
            ["batch", *x.shape[1:]] if i in self.dynamic else list(x.shape)
            for i, x in zip(self.active, self.arrays(), strict=True)
        ]

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        """Emit the call on values for the active inputs; its outputs."""
        given, dtype = dict(zip(self.active, values, strict=True)), dtype_of(values[0])
        inputs = [
            given.get(i, None if x is None else initializer(op, x, dtype))
            for i, x in enumerate(self.inputs)
        ]
        domain, _, name = self.op.rpartition("::")
        opset = op.builder.opset(domain, 1) if domain else op
        made = opset.builder.call_op(
            name, inputs, dict(self.attributes), domain, opset.version, self.outputs
        )
        return [made] if isinstance(made, ir.Value) else list(made)

    def forward_model(self, dtype: ir.DataType = ir.DataType.DOUBLE) -> ir.Model:
        """The call alone."""
        return forward_model(self.build, self.shapes(), dtype, self.opset)


@dataclass(frozen=True)
class Checked:
    """What was found right: a case's seeded outputs, and cotangents given and found, set by set."""

    outputs: list[Array]
    given: list[list[Array]]
    cotangents: list[list[Array]]


def check(
    case: Case,
    evaluate: Callable[[onnx.ModelProto], Run],
    steps: Sequence[float] = (1e-3,),
    tolerance: float = 1e-7,
    sets: int = 1,
) -> Checked:
    """As `check_vjp`, for some sets of cotangents.

    Args:
        evaluate: makes of a model what runs it.
    """
    xs, rng = case.arrays(), np.random.default_rng(0)
    forward = case.forward_model()
    composites.spell_out(forward)
    evaluated = evaluate(ir.to_proto(forward))

    def run(*values: Array) -> list[Array]:
        ys = evaluated({f"x{i}": x for i, x in enumerate(values)})
        return [ys[k] for k in case.seeded]

    ys = run(*xs)
    given = [[rng.normal(size=y.shape) for y in ys] for _ in range(sets)]
    backward = evaluate(backward_model(case, outputs=ys))
    found = [list(backward(feeds_of(xs, gs))) for gs in given]
    for gs, cotangents in zip(given, found, strict=True):
        for i, cotangent in enumerate(cotangents):
            v = rng.normal(size=xs[i].shape)
            slopes = (_slope(run, xs, i, v, gs, step) for step in steps)
            _compare(f"{case}, input {case.active[i]}", cotangent, v, slopes, tolerance)
    return Checked(ys, given, found)


def _compare(
    what: str, cotangent: Array, v: Array, slopes: Iterable[float], tolerance: float
) -> None:
    """Raise RuleError unless ⟨cotangent, v⟩ is one of the slopes."""
    if cotangent.shape != v.shape:
        raise RuleError(f"{what}: a cotangent of shape {cotangent.shape}, not {v.shape}")
    found = float((cotangent * v).sum())
    size = float(np.linalg.norm(cotangent) * np.linalg.norm(v))
    errors = []
    for slope in slopes:
        scale = max(size, abs(slope))
        errors.append(abs(found - slope) / scale if scale else 0.0)
        if abs(found - slope) <= tolerance * scale + _TINY:
            return
    raise RuleError(
        f"{what}: the rule's cotangent is wrong, or the operator has a kink here: along a random "
        f"direction it differs from central differences by {min(errors):.1e} of its size"
    )


_TINY = 1e-10  # for what is 0, where differences round


def _slope(
    run: Callable[..., Sequence[Array]],
    xs: Sequence[Array],
    i: int,
    v: Array,
    gs: Sequence[Array],
    step: float,
) -> float:
    """⟨g, J v⟩ for input i: central differences at two steps, extrapolated to none."""

    def difference(h: float) -> list[Array]:
        up, down = (run(*xs[:i], xs[i] + s * h * v, *xs[i + 1 :]) for s in (1, -1))
        return [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]

    fine, coarse = difference(step / 2), difference(step)
    return sum(float((g * (4 * a - b) / 3).sum()) for g, a, b in zip(gs, fine, coarse, strict=True))


# ----- graphs to evaluate -----


def forward_model(
    build: Callable[..., Sequence[ir.Value]],
    shapes: Sequence[Sequence[int | str]],
    dtype: ir.DataType = ir.DataType.DOUBLE,
    opset: int = 20,
) -> ir.Model:
    """A graph with the inputs x0, x1, … and what `build(op, *inputs)` returns as its outputs."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="forward")
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", dtype, shape) for i, shape in enumerate(shapes)]
    outputs = build(builder.op, *inputs)
    graph.outputs.extend(outputs)
    for i, y in enumerate(outputs):
        y.name = f"y{i}"
    for value in list(graph.initializers.values()):
        value.name = f"source.{value.name}"  # as the canonical form has it
    model = ir.Model(graph, ir_version=10)
    composites.define(model)
    import_domains(model)
    infer_shapes(model)
    return model


def backward_model(
    case: Case,
    dtype: ir.DataType = ir.DataType.DOUBLE,
    outputs: Sequence[Array] | None = None,
) -> onnx.ModelProto:
    """Active inputs x0, … and cotangents g0, … in, the cotangents of the active inputs out.

    Args:
        outputs: those seeded, for the shapes of an operator that ONNX does not know.
    """
    model = case.forward_model(dtype)
    graph = model.graph
    wanted = list(graph.inputs)
    seeded = [graph.outputs[k] for k in case.seeded]
    for y, found in zip(seeded, outputs or [], strict=False):
        if y.shape is None:
            y.dtype, y.shape = dtype, _shape_of(found, wanted[0])
    seeds = add_seeds(model, case.seeded)
    cotangents = pull_back(builder_of(model), seeds, wanted, VJPS)
    graph.outputs[:] = []
    for i, (cotangent, x) in enumerate(zip(cotangents, wanted, strict=True)):
        add_output(model, cotangent, f"cotangent{i}", like=x)
    return finished(model)


def _shape_of(found: Array, x: ir.Value) -> ir.Shape:
    """Its own, with the open batch of x."""
    batch = list(x.shape or [])[:1]
    is_open = found.ndim and batch and not isinstance(batch[0], int)
    return ir.Shape([*batch, *found.shape[1:]] if is_open else found.shape)


def builder_of(model: ir.Model) -> OpBuilder:
    """The one builder of what comes after the forward pass."""
    if "builder" not in model.meta:
        model.meta["builder"] = Builder(model.graph)
        model.meta["builder"].push_module("pullback")
    return model.meta["builder"].op


def add_seeds(
    model: ir.Model, seeded: Sequence[int], prefix: str = "g"
) -> dict[ir.Value, ir.Value]:
    """Inputs for the cotangents of the seeded outputs."""
    builder, outputs = builder_of(model).builder, model.graph.outputs
    return {
        outputs[k]: builder.input(f"{prefix}{j}", outputs[k].dtype, outputs[k].shape)
        for j, k in enumerate(seeded)
    }


def add_output(model: ir.Model, value: ir.Value, name: str, like: ir.Value | None = None) -> None:
    """An output, through an Identity so that any value will do; it has the shape of `like`."""
    value = builder_of(model).Identity(value)
    value.name = name
    if like is not None:
        value.shape, value.dtype = ir.Shape(like.shape or []), dtype_of(like)
    model.graph.outputs.append(value)


def finished(model: ir.Model) -> onnx.ModelProto:
    """The model cleaned, as an export's, and checked."""
    model.graph.sort()
    clean(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def initializer(op: OpBuilder, array: npt.ArrayLike, dtype: ir.DataType) -> ir.Value:
    """A constant; of float64, it becomes one of `dtype`."""
    array = np.asarray(array)
    if array.dtype == np.float64:
        array = array.astype(dtype.numpy())
    name = f"weight_{len(op.builder.graph.initializers)}"
    return op.builder.initializer(ir.tensor(array, name=name), name)


def dtype_of(value: ir.Value) -> ir.DataType:
    """A value's, which is known."""
    assert value.dtype is not None
    return value.dtype


def feeds_of(xs: Sequence[Array], gs: Sequence[Array]) -> dict[str, Array]:
    """What the inputs of a backward model are given."""
    return {f"x{i}": x for i, x in enumerate(xs)} | {f"g{j}": g for j, g in enumerate(gs)}


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
