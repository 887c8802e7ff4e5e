"""The backward pass of an explain graph, laid behind its canonical forward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder, sort
from onnxplain.contract.explain import TARGET
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Cotangents, Node, Rule, operator_name, pull_back
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.canonical.ports import join
from onnxplain.export.grids import Layer
from onnxplain.export.heads import activation_map, one_hot
from onnxplain.export.lower import lower
from onnxplain.export.methods import Method
from onnxplain.export.methods.method import Temperature
from onnxplain.export.methods.probes import Explained, weigh
from onnxplain.export.methods.weighted import Pixels
from onnxplain.export.objectives import LOGIT, Fit, Objective
from onnxplain.export.objectives.objective import is_choice
from onnxplain.export.objectives.sweep import add_objective, scalar_of
from onnxplain.export.operators import VJPS
from onnxplain.export.provenance import named_after
from onnxplain.export.temperatures import fold_temperatures
from onnxplain.export.tensors import dims, rank
from onnxplain.export.vmap import vmap
from onnxplain.kernels.calls import add_functions
from onnxplain.kernels.functions import KernelBuilder


@dataclass(frozen=True)
class Added:
    """What comes after a backward pass needs of it.

    Attributes:
        op: the builder to go on with: it knows the names that are taken.
        hot: of a classifier the one-hot vector of the target.
        fixed: what says what is explained: `hot`, or what an objective chooses or holds constant.
        looped: what loops cost, in multiply-adds per image.
    """

    op: OpBuilder
    hot: ir.Value | None
    fixed: Sequence[ir.Value]
    looped: int = 0


def add_pullback(
    model: ir.Model,
    method: Method,
    values: Mapping[str, float | None],
    roots: Mapping[str, ir.Value],
    *,
    layers: Sequence[Layer] = (),
    multi_target: bool = False,
    live: Collection[str] = (),
    kernels: bool = False,
    objective: Objective = LOGIT,
    fit: Fit | None = None,
    excepted: Collection[ir.Value] = (),
    plain: bool = False,
    pixels: Pixels | None = None,
) -> Added:
    """Add the backward pass to a canonical forward graph, in place: its inputs and its outputs.

    Args:
        values: of the method's parameters.
        roots: what is explained by, by the names of the outputs that are to explain it: the image,
            or other values.
        layers: where the sweep stops instead, for a method with an activation map; of one with a
            probe, there is none.
        live: those of them that are inputs of the graph instead.
        objective: what is explained.
        fit: what it takes of the network's outputs; None for a classifier's, of the one output.
        excepted: values whose operator keeps its gradient's rule.
        plain: whether it stays as the rules emit it, however slow.
        pixels: the bounds of an image's pixels, None of other values.

    Raises:
        NoRuleError: an operator between the objective and a root has no rule.
        RuleError: a rule gave what is no cotangent of its input.
        SourceError: the objective does not depend on a root, or on the layer.
    """
    graph = model.graph
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    first = next(iter(roots.values()))
    builder = KernelBuilder(graph) if kernels else Builder(graph)
    builder.push_module("pullback")
    op = builder.op
    leading = [dims(first)[0], *([ir.SymbolicDim("targets")] if multi_target else [])]

    def rules() -> Mapping[str, Rule]:
        taken: dict[str, Temperature | None] = dict(values)
        taken |= {name: builder.input(name, first.dtype, []) for name in live}
        return but_for(method.rules(taken, op, pixels, roots.values()), excepted)

    wanted = [layer.value for layer in layers] or [*roots.values()]
    if method.probe is not None:
        wanted = []
    sweep = _Sweep(op, wanted, multi_target, leading)
    hot: ir.Value | None = None
    fixed: list[ir.Value] = []
    if fit is None:
        pullbacks, hot, head = sweep.of_classifier(outputs[0], objective, rules)
    else:
        relevance = method.relevance is not None
        pullbacks, emitted, fixed, head = sweep.of_objective(
            first, objective, fit, rules, relevance
        )
        graph.outputs.extend(emitted)
    fixed = fixed if hot is None else [hot]
    looped = 0
    if method.probe is not None:
        explained = Explained(scalar_of(op, objective, hot), fixed, hot is not None)
        given = op, method.probe, first, explained, int(values["chunk"] or 1)
        weighed = [weigh(layer, *given) for layer in layers]
        pullbacks, looped = [w for w, _ in weighed], sum(cost for _, cost in weighed)
    elif layers:
        pullbacks = [x.laid_out(op, g) for x, g in zip(layers, pullbacks, strict=True)]
    each = [pullbacks] if layers else [[pullback] for pullback in pullbacks]
    ends: dict[str, Any] = {
        name: _finished(op, method, x, own, layers, leading)
        for (name, x), own in zip(roots.items(), each, strict=True)
    }
    if isinstance(builder, KernelBuilder):
        add_functions(model, builder)
    if not plain:
        lower(op, list(graph)[head:])
        if inputs == [first]:
            fold_temperatures(op, first, outputs)
    for name, end in ends.items():
        pullback = end.producer().inputs[0]
        if pullback in inputs or pullback in roots.values() or pullback.is_graph_output():
            pullback = end
        pullback.name, pullback.shape = name, end.shape
        graph.outputs.append(pullback)
    sort(graph)
    join(graph, {name: x for name, x in roots.items() if x not in inputs})
    return Added(op, hot, fixed, looped)


def _finished(
    op: OpBuilder,
    method: Method,
    x: ir.Value,
    pullbacks: Sequence[ir.Value],
    layers: Sequence[Layer],
    leading: Sequence[int | ir.SymbolicDim],
) -> ir.Value:
    """The pullback as the file has it, of x's shape with the targets behind the batch: behind an
    Identity, by which the last node's lowered form is found. It is one of x, or one of each layer,
    of which the map is made."""
    pullback = pullbacks[0]
    if method.times_input:
        pullback = op.Mul(pullback, x)
    shape = [*leading, *dims(x)[1:]]
    if method.activation_map is not None:
        channels = image_axes(x)[2]
        shape[channels - 4] = 1
        pullback = activation_map(op, method.activation_map, layers, pullbacks, x, channels == 3)
    elif len(leading) > 1:
        pullback = op.Transpose(pullback, perm=[1, 0, *range(2, 1 + rank(x))])
    end = op.Identity(pullback)
    end.shape = ir.Shape(shape)
    return end


@dataclass(frozen=True)
class _Sweep:
    """The sweep to the values `at`, for one target of each sample or for K.

    Of K, what depends on the target is emitted for one of them, and repeated for all.
    """

    op: OpBuilder
    at: Sequence[ir.Value]
    multi_target: bool
    leading: Sequence[int | ir.SymbolicDim]

    def of_classifier(
        self, logits: ir.Value, objective: Objective, rules: Callable[[], Mapping[str, Rule]]
    ) -> tuple[list[ir.Value], ir.Value, int]:
        """The pullbacks [N, …] or [K, N, …], the target's one-hot vector, and where in the graph
        the sweep begins."""
        assert objective.cotangent is not None
        op, graph = self.op, self.op.builder.graph
        target = op.builder.input(TARGET, ir.DataType.INT64, self.leading)
        table = rules()
        with named_after(op, "pullback/target"):
            hot = one_hot(op, logits, target)
            seed = objective.cotangent(op, logits, hot)
        if not self.multi_target:
            head = len(graph)
            return pull_back(op, {logits: seed}, self.at, table), hot, head
        K = op.Shape(target, start=1, end=2)
        each = op.Transpose(seed, perm=[1, 0, 2])
        first = op.Squeeze(op.Slice(each, [0], [1], [1]), [1])
        before = len(graph)
        pullbacks = pull_back(op, {logits: first}, self.at, table)
        backward = list(graph)[before:]
        head = len(graph)
        mapped = vmap(op, backward, {first: each}, K)
        return [mapped[pullback] for pullback in pullbacks], hot, head

    def of_objective(
        self,
        image: ir.Value,
        objective: Objective,
        fit: Fit,
        rules: Callable[[], Mapping[str, Rule]],
        relevance: bool,
    ) -> tuple[list[ir.Value], list[ir.Value], list[ir.Value], int]:
        """The pullbacks [N, …] or [K, N, …], the objective's outputs [N, …] or [N, K, …], what it
        chooses or holds constant, and where in the graph the sweep begins."""
        op, graph = self.op, self.op.builder.graph
        inputs = {
            one.name: op.builder.input(
                one.name,
                one.dtype(image),
                self.leading
                if one.name == TARGET
                else [self.leading[0], *fit.shapes.get(one.name, ())],
            )
            for one in objective.inputs
        }
        table = rules()
        target = inputs.get(TARGET)
        if self.multi_target:
            assert target is not None
            each = op.Transpose(target, perm=[1, 0])
            first = inputs[TARGET] = op.Squeeze(op.Slice(each, [0], [1], [0]), [0])
        before = len(graph)
        emitted, seeds = add_objective(op, objective, fit, inputs, image, relevance)
        head = len(graph)
        fixed = [y for node in list(graph)[before:head] if is_choice(node) for y in node.outputs]
        pullbacks = pull_back(op, seeds, self.at, table)
        if self.multi_target:
            repeated = list(graph)[before:]
            head = len(graph)
            K = op.Shape(target, start=1, end=2)
            mapped = vmap(op, repeated, {first: each}, K)
            if any(pullback not in mapped for pullback in pullbacks):
                raise SourceError(f"objective {objective.name!r} does not depend on the target")
            pullbacks = [mapped[pullback] for pullback in pullbacks]
            fixed = [mapped.get(value, value) for value in fixed]
            emitted = {
                name: op.Transpose(
                    mapped[value] if value in mapped else _repeated(op, value, K),
                    perm=[1, 0, *range(2, 1 + rank(value))],
                )
                for name, value in emitted.items()
            }
        outputs = []
        own = {output.name for output in graph.outputs}
        for name, value in emitted.items():
            if name in own:
                raise SourceError(
                    f"objective {objective.name!r} puts out {name!r}, and so does the network"
                )
            output = op.Identity(value)  # of its own, and by its own name
            output.name = name
            behind = dims(value)[2 if self.multi_target else 1 :]
            output.shape = ir.Shape([*self.leading, *behind])
            outputs.append(output)
        return pullbacks, outputs, fixed, head


def _repeated(op: OpBuilder, value: ir.Value, K: ir.Value) -> ir.Value:
    """[N, …], which no target changes, as [K, N, …]."""
    return op.Expand(op.Unsqueeze(value, [0]), op.Concat(K, op.Shape(value), axis=0))


def but_for(rules: Mapping[str, Rule], excepted: Collection[ir.Value]) -> Mapping[str, Rule]:
    """The rules, but that what puts out one of these values keeps its gradient's."""

    def either(name: str, rule: Rule) -> Rule:
        def apply(op: OpBuilder, node: Node, *g: Any) -> Cotangents:
            kept = any(y in excepted for y in node.outputs)
            return (VJPS[name] if kept else rule)(op, node, *g)

        return apply

    producers = [value.producer() for value in excepted]
    kinds = {operator_name(node) for node in producers if node is not None}
    return {name: either(name, rule) if name in kinds else rule for name, rule in rules.items()}
