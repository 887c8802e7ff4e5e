"""Reverse-mode differentiation of an ONNX graph, on the graph itself.

A *rule* gives an operator's vector-Jacobian product: `rule(op, node, *cotangents)` emits nodes
through the builder `op` (`op.Mul(a, b)`, `op.Conv(x, w, strides=[2, 2])`; Python numbers become
constants of the neighbour's dtype) and returns the cotangents of the node's inputs, in their
order: one alone for the first input, else a sequence. A function in it is called where that input's
cotangent is wanted, which no constant's is; `None` means that no cotangent flows there; an input
past its end has no rule. An operand that was broadcast may be given a cotangent of the result's
shape: the sweep sums it. There is one incoming cotangent per output of the node, `None` for an
output that nothing depends on.

What the bodies of control flow read from around them counts as more inputs, behind the node's own
(`operands`). The rule of a node with bodies is also given `rules`, the table, and `active`, the
values whose cotangents are wanted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeAlias

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import (
    NoRuleError,
    OnnxplainError,
    OpenSizeError,
    RuleError,
    SourceError,
)
from onnxplain.export.emitted import invalid, is_open, most_inputs, repeats
from onnxplain.export.provenance import named_after, origin
from onnxplain.export.stretched import stretched, sum_if_one
from onnxplain.export.subgraphs import bodies, captured, carried, operands


class Node(Protocol):
    """An `ir.Node` as its rule sees it: the inputs that its operator requires are there."""

    @property
    def name(self) -> str | None: ...
    @property
    def domain(self) -> str: ...
    @property
    def op_type(self) -> str: ...
    @property
    def inputs(self) -> Sequence[Any]: ...
    @property
    def outputs(self) -> Sequence[ir.Value]: ...
    @property
    def attributes(self) -> Any: ...
    def replace_input_with(self, index: int, value: Any) -> None: ...
    def resize_outputs(self, new_size: int, /) -> None: ...


Cotangent: TypeAlias = ir.Value | Callable[[], ir.Value] | None
Cotangents: TypeAlias = Cotangent | Sequence[Cotangent]
Rule: TypeAlias = Callable[..., Cotangents]

SHAPES = frozenset(["Shape", "Size"])
"""Operators that read a shape and no element: nothing flows through them."""

_HELD = frozenset(["onnxplain::DynamicScale", "RandomNormalLike", "RandomUniformLike"])


def pull_back(
    op: OpBuilder,
    seeds: Mapping[ir.Value, ir.Value],
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule],
) -> list[ir.Value]:
    """One reverse sweep: the cotangents of `wanted`, given those of other values of the graph.

    Args:
        op: the builder of the graph that holds the forward pass; the backward nodes go to its end.
        seeds: the cotangent of each value that the sweep starts from, of that value's shape.
        wanted: where the sweep ends. Only nodes on a path from one of these to a seed are visited.
        rules: operator name → rule (`"domain::Name"` outside the standard domain). What one emits
            is named `pullback/`, the layer that its node belongs to, `/` and the operator.

    Returns:
        One cotangent per wanted value, of its shape and dtype.

    Raises:
        NoRuleError: an operator on a path has no rule, or none for the input concerned.
        RuleError: a rule gave a cotangent of another dtype or shape than its input has, what is
            none, or more than there are inputs; or it emitted what is no operator of ONNX, or
            failed.
        SourceError: no seed depends on a wanted value.
    """
    results = swept(op, seeds, wanted, rules)
    if any(result is None for result in results):
        missing = [w.name for w, r in zip(wanted, results, strict=True) if r is None]
        raise SourceError(f"the output does not depend on {', '.join(map(str, missing))}")
    return [result for result in results if result is not None]


def swept(
    op: OpBuilder,
    seeds: Mapping[ir.Value, ir.Value],
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule],
    nodes: Sequence[ir.Node] | None = None,
    held: Collection[ir.Value] = (),
) -> list[ir.Value | None]:
    """What `pull_back` returns, and None for each wanted value that no cotangent arrives at.

    Args:
        nodes: those passed, in the graph's order; all unless given.
        held: values that are taken for constants.

    Raises:
        NoRuleError, RuleError: as `pull_back`.
    """
    nodes = list(op.builder.graph) if nodes is None else nodes
    active = dependents(nodes, wanted, held)
    arriving: defaultdict[ir.Value, list[ir.Value]] = defaultdict(list)
    for value, cotangent in seeds.items():
        arriving[value].append(shaped_as(cotangent, value))

    def total(value: ir.Value) -> ir.Value | None:
        terms = arriving[value]
        if len(terms) > 1:
            added = op.Add(*terms) if len(terms) == 2 else op.Sum(*terms)
            arriving[value] = terms = [shaped_as(added, value)]
        return terms[0] if terms else None

    for node in reversed(nodes):
        if not depends(node, active) or not any(arriving[y] for y in node.outputs):
            continue
        rule = rules.get(operator_name(node))
        if rule is None:
            raise NoRuleError(_no_rule(node))
        if bodies(node):
            rule = partial(rule, rules=rules, active=active)
        with named_after(op, f"pullback/{origin(node)}"):
            arrived = list(map(total, node.outputs))
            for x, gx in _applied(op, rule, node, arrived, active):
                arriving[x].append(gx)

    with named_after(op, "pullback"):
        return [total(value) for value in wanted]


def _applied(
    op: OpBuilder,
    rule: Rule,
    node: Node,
    arrived: Sequence[ir.Value | None],
    active: Collection[ir.Value | None],
) -> list[tuple[ir.Value, ir.Value]]:
    """What a rule gives a node: its active inputs, each with its cotangent.

    Raises:
        NoRuleError, RuleError: as `pull_back`.
    """
    before = len(op.builder.graph)
    try:
        result = rule(op, node, *arrived)
        found = [
            (index, x, gx)
            for index, x in enumerate(operands(node))
            if x is not None
            and x in active
            and (gx := cotangent_of(op, node, result, index)) is not None
        ]
    except OpenSizeError as error:
        raise OpenSizeError(
            f"the rule of {operator_name(node)} needs a number for a size that is open, at node "
            f"{node.name!r}: {error.args[0]}"
        ) from error
    except OnnxplainError:
        raise
    except Exception as error:
        raise RuleError(
            f"the rule of {operator_name(node)} fails at node {node.name!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check_emitted(op, node, result, found, before)
    return [(x, shaped_as(gx, x)) for _, x, gx in found]


def cotangent_of(op: OpBuilder, node: Node, result: Cotangents, index: int) -> ir.Value | None:
    """The cotangent of one input of a node, of its shape, in what the rule returned.

    Raises:
        NoRuleError, RuleError: as `pull_back`.
    """
    given = _several(result)
    x = operands(node)[index]
    assert x is not None
    if index >= len(given):
        raise NoRuleError(_no_rule(node, f" with respect to its input {index} ({x.name})"))
    found = given[index]
    gx = found() if callable(found) else found
    if gx is None:
        return None
    if not isinstance(gx, ir.Value):
        raise RuleError(
            f"the rule of {operator_name(node)} gives its input {index} a "
            f"{type(gx).__name__}, where a cotangent is a value of the graph, or None"
        )
    gx = unbroadcast(op, gx, x)
    gx = sum_if_one(op, gx, x, stretched(op.builder.root.graph, node, x))
    if not _alike(gx, x):
        raise _wrong_cotangent(node, x, index, gx)
    return gx


def _several(result: Cotangents) -> Sequence[Cotangent]:
    return result if isinstance(result, Sequence) else [result]


def _check_emitted(
    op: OpBuilder,
    node: Node,
    result: Cotangents,
    found: Iterable[tuple[int, ir.Value, ir.Value]],
    before: int,
) -> None:
    """Hold what a rule returned and emitted, the graph's nodes from the index `before`, to ONNX.

    Raises:
        RuleError: it is none of ONNX's operators, or more cotangents than the node's operator has
            inputs, or one of another shape than its input where the batch is of some size.
    """
    graph = op.builder.graph
    emitted = list(islice(reversed(graph), len(graph) - before))[::-1]
    opset = graph.opset_imports[""]
    given, most = _several(result), most_inputs(operator_name(node), opset) or len(node.inputs)
    most += len(captured(node))
    if any(gx is not None for gx in given[most:]):
        raise RuleError(
            f"the rule of {operator_name(node)} gives {len(given)} cotangents at node "
            f"{node.name!r}, whose operator has {most} input{'s' * (most != 1)}"
        )
    if wrong := invalid(emitted, opset):
        raise RuleError(
            f"the rule of {operator_name(node)} emits a {wrong[0].op_type} at node "
            f"{node.name!r}, which ONNX refuses: {wrong[1]}"
        )
    for index, x, gx in found:
        if is_open(gx, x) and repeats(gx, x, emitted, graph):
            raise _wrong_cotangent(node, x, index, gx, ", of another multiple of the batch")


def _wrong_cotangent(node: Node, x: ir.Value, index: int, gx: ir.Value, why: str = "") -> RuleError:
    return RuleError(
        f"the rule of {operator_name(node)} gives its input {index}, {x.name!r} {x.dtype}"
        f"{x.shape} of node {node.name!r}, a cotangent {gx.dtype}{gx.shape}{why}"
    )


def unbroadcast(op: OpBuilder, g: ir.Value, x: ir.Value) -> ir.Value:
    """Sum `g` over the axes along which x was stretched to g's shape."""
    if g.shape is None or x.shape is None:
        return g
    extra = max(len(g.shape) - len(x.shape), 0)  # axes from the front: ONNX Runtime (1.31) leaves
    pairs = zip(x.shape, list(g.shape)[extra:], strict=False)  # those from the end of empty tensors
    stretched = [extra + i for i, (dx, dg) in enumerate(pairs) if dx == 1 and dg != 1]
    added = list(range(extra))
    if added or stretched:
        g = op.ReduceSum(g, [*added, *stretched], keepdims=1)
    return op.Squeeze(g, added) if added else g


def shaped_as(g: ir.Value, x: ir.Value) -> ir.Value:
    """g, its shape said to be that of x where inference did not find it."""
    if g.shape is None or any(isinstance(n, ir.SymbolicDim) and n.value is None for n in g.shape):
        g.shape = x.shape
    return g


def _alike(g: ir.Value, x: ir.Value) -> bool:
    """Whether g may be a cotangent of x, as far as is known; of a whole number it is a float."""
    if x.dtype is not None and x.dtype.is_floating_point() and g.dtype not in (None, x.dtype):
        return False
    if g.shape is None or x.shape is None:
        return True
    pairs = zip(g.shape, x.shape, strict=False)
    differing = (a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
    return len(g.shape) == len(x.shape) and not any(differing)


def dependents(
    nodes: Iterable[ir.Node], roots: Iterable[ir.Value], held: Collection[ir.Value] = ()
) -> set[ir.Value | None]:
    """The roots and every value computed from them by `nodes` (in graph order), but for those that
    are held constant."""
    active: set[ir.Value | None] = set(roots)
    for node in nodes:
        if depends(node, active):
            active.update(y for y in node.outputs if y not in held)
    return active


def active_within(
    node: Node, body: ir.Graph, active: Collection[ir.Value | None]
) -> set[ir.Value | None]:
    """The values of a node's body that depend on active ones, be it after many rounds; not by how
    many there are."""
    first = 2 * (len(body.outputs) - len(node.outputs))  # behind a Loop's number and condition
    both = zip(node.inputs[first:], body.inputs[first:], strict=False)
    roots = {inner for x, inner in both if x in active}
    roots.update(x for x in captured(node) if x in active)
    while True:
        found = dependents(body, roots)
        more = {state for state, end in carried(node, body) if end in found} - roots
        if not more:
            return found
        roots |= more


def between(
    nodes: Iterable[ir.Node], roots: Iterable[ir.Value], ends: Iterable[ir.Value]
) -> list[ir.Node]:
    """Those of the nodes, in their (graph) order, by which the ends depend on the roots."""
    nodes = list(nodes)
    active, needed, found = dependents(nodes, roots), set(ends), []
    for node in reversed(nodes):
        if depends(node, active) and not needed.isdisjoint(node.outputs):
            found.append(node)
            needed.update(x for x in operands(node) if x is not None and x in active)
    return found[::-1]


def is_constant(node: Node) -> bool:
    """Whether what a node computes is a constant to whatever is differentiated."""
    return node.op_type in SHAPES or operator_name(node) in _HELD


def depends(node: ir.Node, active: set[ir.Value | None]) -> bool:
    """Whether a node computes from an active value, in its subgraphs too; shapes and other values
    held constant do not count."""
    if is_constant(node):
        return False
    return not active.isdisjoint(operands(node))


def operator_name(node: Node) -> str:
    """The key of a node's operator in a table of rules."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _no_rule(node: Node, where: str = "") -> str:
    name = operator_name(node)
    return (
        f"no rule for the cotangent of operator {name}{where}, at node {node.name!r}; "
        f'give it one with: onnxplain.export.register_vjp("{name}"); in layer-wise relevance '
        "propagation its kind must be one of those in onnxplain.export.methods.lrp"
    )
