"""The backward pass of an explain graph, laid behind its canonical forward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder, sort
from onnxplain.contract.explain import MAP, TARGET
from onnxplain.contract.objective import CONCEPT_RELEVANCE, CONCEPTS
from onnxplain.errors import SourceError
from onnxplain.export.attended import Attended
from onnxplain.export.attentions import put_out
from onnxplain.export.autodiff import Cotangents, Node, Rule, operator_name, pull_back
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.canonical.ports import join
from onnxplain.export.concepts import Concepts
from onnxplain.export.grids import Layer
from onnxplain.export.heads import activation_map, arrived, attention_map, one_hot
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
from onnxplain.export.scored import scored
from onnxplain.export.temperatures import fold_temperatures
from onnxplain.export.tensors import dims, rank
from onnxplain.export.vmap import vmap
from onnxplain.kernels.calls import add_functions
from onnxplain.kernels.functions import KernelBuilder

Rules: TypeAlias = Callable[[], Sequence[Mapping[str, Rule]]]
"""The table of each sweep, once the inputs before theirs are there."""


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
    attended: Attended | None = None,
    attentions: Mapping[str, ir.Value] = MappingProxyType({}),
    concepts: Concepts | None = None,
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
        attended: the same for one with a map of attention.
        attentions: values of the forward pass that are put out besides, by name.
        concepts: the layer whose channels an input weighs; the relevance of each is put out.
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

    def rules() -> list[Mapping[str, Rule]]:
        taken: dict[str, Temperature | None] = dict(values)
        taken |= {name: builder.input(name, first.dtype, []) for name in live}
        tables = []
        for part in method.parts:
            own = {one.name: taken[one.name] for one in part.parameters if one.name in taken}
            tables.append(but_for(part.rules(own, op, pixels, roots.values()), excepted))
        return tables

    sweep = _Sweep(op, ends_of(method, layers, attended, roots), multi_target, leading, concepts)
    each = [
        [*scored(op, attended, outputs[0])] if part.by_layer and attended is not None else None
        for part in method.parts
    ]
    hot: ir.Value | None = None
    fixed: list[ir.Value] = []
    if fit is None:
        swept, hot, head = sweep.of_classifier(outputs[0], objective, rules, each)
    else:
        relevance = {part.relevance is not None for part in method.parts}
        if len(relevance) > 1:
            raise SourceError(
                f"{method.name!r} multiplies relevances by what is none; of objective "
                f"{objective.name!r} they begin at other values: choose one of its factors"
            )
        swept, emitted, fixed, head = sweep.of_objective(
            first, objective, fit, rules, relevance.pop()
        )
        graph.outputs.extend(emitted)
    fixed = fixed if hot is None else [hot]
    looped = 0
    if concepts is not None:
        told = concepts.of_each(op, method, arrived(op, swept[0].pop()))
        told.name, told.shape = CONCEPT_RELEVANCE, ir.Shape([*leading, concepts.count])
        graph.outputs.append(told)
        fixed.append(next(x for x in graph.inputs if x.name == CONCEPTS))
    for i, part in enumerate(method.parts):
        if part.probe is not None:
            explained = Explained(scalar_of(op, objective, hot), fixed, hot is not None)
            given = op, part.probe, first, explained, int(values["chunk"] or 1)
            weighed = [weigh(layer, *given) for layer in layers]
            swept[i], looped = [w for w, _ in weighed], looped + sum(cost for _, cost in weighed)
        elif part.activation_map is not None:
            pairs = zip(layers, swept[i], strict=True)
            swept[i] = [x.laid_out(op, arrived(op, g)) for x, g in pairs]
        elif len(method.parts) > 1 or part.attention_map is not None:
            swept[i] = [arrived(op, g) for g in swept[i]]
    graph.outputs.extend(put_out(op, attentions, first))
    ends: dict[str, Any] = {
        name: _finished(op, method, x, i, swept, layers, attended, leading)
        for i, (name, x) in enumerate(roots.items())
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


def ends_of(
    method: Method,
    layers: Sequence[Layer],
    attended: Attended | None,
    roots: Mapping[str, ir.Value],
) -> list[list[ir.Value]]:
    """Where each sweep of a method ends: at the layers or their attention, or at what is explained
    by; a probe has none."""
    at = [layer.value for layer in layers]
    return [
        []
        if part.probe is not None
        else at
        if part.activation_map is not None
        else [*attended.asked]
        if part.attention_map is not None and attended is not None
        else [*roots.values()]
        for part in method.parts
    ]


def _finished(
    op: OpBuilder,
    method: Method,
    x: ir.Value,
    root: int,
    swept: Sequence[Sequence[ir.Value]],
    layers: Sequence[Layer],
    attended: Attended | None,
    leading: Sequence[int | ir.SymbolicDim],
) -> ir.Value:
    """The pullback as the file has it, of x's shape with the targets behind the batch: behind an
    Identity, by which the last node's lowered form is found. `swept` are those of each of the
    method's parts, of all roots or of the layers; `root` says which of them x is."""
    channels, shape = image_axes(x)[2] if layers or attended else None, [*leading, *dims(x)[1:]]

    def of(part: Method, own: Sequence[ir.Value]) -> ir.Value:
        if part.activation_map is not None:
            return activation_map(op, part.activation_map, layers, own, x, channels == 3)
        if part.attention_map is not None and attended is not None:
            return attention_map(op, part.attention_map, attended, own, x, channels == 3)
        pullback = op.Mul(own[root], x) if part.times_input else own[root]
        if len(leading) > 1:
            pullback = op.Transpose(pullback, perm=[1, 0, *range(2, 1 + rank(x))])
        return pullback

    pullback, *others = (of(*one) for one in zip(method.parts, swept, strict=True))
    for other in others:
        pullback = op.Mul(pullback, other)
    if method.factors and method.times_input:
        pullback = op.Mul(pullback, op.Unsqueeze(x, [1]) if len(leading) > 1 else x)
    if channels is not None and method.kind == MAP:
        shape[channels - 4] = 1
    end = op.Identity(pullback)
    end.shape = ir.Shape(shape)
    return end


@dataclass(frozen=True)
class _Sweep:
    """The sweeps from one target of each sample, or from K: each by its own rules, to the values at
    which it `ends`.

    Of K, what depends on the target is emitted for one of them, and repeated for all.
    """

    op: OpBuilder
    ends: Sequence[Sequence[ir.Value]]
    multi_target: bool
    leading: Sequence[int | ir.SymbolicDim]
    concepts: Concepts | None = None

    def _pulled(
        self, seeds: Mapping[ir.Value, ir.Value], at: Sequence[ir.Value], table: Mapping[str, Rule]
    ) -> list[ir.Value]:
        """What arrives there. Under a condition, of what arrives at the layer, weighed; the last is
        what has arrived at the layer then."""
        op, concepts = self.op, self.concepts
        if concepts is None:
            return pull_back(op, seeds, at, table)
        (whole,) = pull_back(op, seeds, [concepts.value], table)
        sizes = [self.leading[0], concepts.count]
        weights = op.builder.input(CONCEPTS, concepts.value.dtype, sizes)
        part = concepts.weighed(op, whole, weights)
        return [*pull_back(op, {concepts.value: part}, at, table), whole]

    def of_classifier(
        self,
        logits: ir.Value,
        objective: Objective,
        rules: Rules,
        each: Sequence[Sequence[tuple[ir.Value, ir.Value]] | None],
    ) -> tuple[list[list[ir.Value]], ir.Value, int]:
        """The pullbacks [N, …] or [K, N, …] of each sweep, the target's one-hot vector, and where
        in the graph the sweeps begin.

        Args:
            each: in place of one sweep from the logits to its ends, several of the same rules: from
                which logits to which end. None for one.
        """
        assert objective.cotangent is not None
        op, graph = self.op, self.op.builder.graph
        target = op.builder.input(TARGET, ir.DataType.INT64, self.leading)
        tables = rules()
        starts = dict.fromkeys([logits, *(y for pairs in each for y, _ in pairs or ())])
        with named_after(op, "pullback/target"):
            hot = one_hot(op, logits, target)
            seeds = {y: objective.cotangent(op, y, hot) for y in starts}
        before, several, K = len(graph), dict[ir.Value, ir.Value](), None
        if self.multi_target:
            K = op.Shape(target, start=1, end=2)
            for y, seed in seeds.items():
                every = op.Transpose(seed, perm=[1, 0, 2])
                seeds[y] = op.Squeeze(op.Slice(every, [0], [1], [1]), [1])
                several[seeds[y]] = every
            before = len(graph)
        swept = [
            [g for y, end in pairs for g in pull_back(op, {y: seeds[y]}, [end], table)]
            if pairs is not None
            else self._pulled({logits: seeds[logits]}, at, table)
            for pairs, at, table in zip(each, self.ends, tables, strict=True)
        ]
        if K is None:
            return swept, hot, before
        backward, head = list(graph)[before:], len(graph)
        mapped = vmap(op, backward, several, K)
        return [[mapped[pullback] for pullback in pullbacks] for pullbacks in swept], hot, head

    def of_objective(
        self,
        image: ir.Value,
        objective: Objective,
        fit: Fit,
        rules: Rules,
        relevance: bool,
    ) -> tuple[list[list[ir.Value]], list[ir.Value], list[ir.Value], int]:
        """The pullbacks [N, …] or [K, N, …] of each sweep, the objective's outputs [N, …] or
        [N, K, …], what it chooses or holds constant, and where in the graph the sweeps begin."""
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
        tables = rules()
        target = inputs.get(TARGET)
        if self.multi_target:
            assert target is not None
            each = op.Transpose(target, perm=[1, 0])
            first = inputs[TARGET] = op.Squeeze(op.Slice(each, [0], [1], [0]), [0])
        before = len(graph)
        emitted, seeds = add_objective(op, objective, fit, inputs, image, relevance)
        head = len(graph)
        fixed = [y for node in list(graph)[before:head] if is_choice(node) for y in node.outputs]
        pairs = zip(self.ends, tables, strict=True)
        swept = [self._pulled(seeds, at, table) for at, table in pairs]
        if self.multi_target:
            repeated = list(graph)[before:]
            head = len(graph)
            K = op.Shape(target, start=1, end=2)
            mapped = vmap(op, repeated, {first: each}, K)
            if any(pullback not in mapped for pullbacks in swept for pullback in pullbacks):
                raise SourceError(f"objective {objective.name!r} does not depend on the target")
            swept = [[mapped[pullback] for pullback in pullbacks] for pullbacks in swept]
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
        return swept, outputs, fixed, head


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
