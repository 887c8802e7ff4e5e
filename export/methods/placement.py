"""Which of a method's rules a layer with weights has: by its name, as one of the first, by kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Cotangents, Node, Rule, operator_name
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.provenance import modules_of
from onnxplain.export.values import varies
from onnxplain.suggest import nearest

WEIGHTED = (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT)
"""The kinds of layers with weights."""


def is_weighted(node: Node) -> bool:
    return row_of(operator_name(node)).kind in WEIGHTED


def is_first(node: Node, roots: Collection[ir.Value] = ()) -> bool:
    """Whether no layer with weights comes before it, on any way from an input, or from a root."""
    waiting, seen = list(node.inputs), {*roots}
    while waiting:
        x = waiting.pop()
        made = None if x is None or x in seen else x.producer()
        seen.add(x)
        if made is None or not varies(x):
            continue
        if is_weighted(made):
            return False
        waiting.extend(made.inputs)
    return True


def names_of(node: ir.Node) -> Iterator[str]:
    """What a layer can be called: its node, what it puts out, its weight, the module whose
    weight it is, and what that stands in, from the innermost.

    A BatchNorm that is part of a convolution is its last module; the weight tells the convolution.
    """
    yield from (str(node.name), *(str(y.name) for y in node.outputs))
    module = weight_of(node)
    while module:
        yield module
        module = module.rpartition(".")[0]
    yield from reversed(modules_of(node))


def weight_of(node: ir.Node) -> str:
    """The name of a layer's weight, empty where it is not stored."""
    stored = (str(x.name) for x in node.inputs[1:2] if x is not None and x.is_initializer())
    return next(stored, "")


def layer_names(graph: ir.Graph) -> list[str]:
    """What the layers of a graph can be called."""
    return [name for node in graph if is_weighted(node) for name in names_of(node)]


def by_weight(named: Mapping[str, Rule], graph: ir.Graph) -> dict[str, Rule]:
    """The rules by name, and by the names of the weights that the layers so called have.

    A layer may lose its own name with a norm that becomes part of it, but not its weight's.

    Args:
        graph: as its source has it.
    """
    found = dict(named)
    for node in graph if named else ():
        own = next((named[name] for name in names_of(node) if name in named), None)
        if is_weighted(node) and own is not None and (weight := weight_of(node)):
            found.setdefault(weight, own)
    return found


def check_layers(names: Iterable[str], known: Collection[str]) -> None:
    """
    Raises:
        SourceError: no layer with weights is called so, or stands in what is.
    """
    for name in names:
        if name not in known:
            raise SourceError(
                f"no convolution or dense layer is called {name!r}, or stands in it; "
                f"{nearest(name, dict.fromkeys(known))}"
            )


def placed(
    rule: Rule, first: Rule | None, named: Mapping[str, Rule], roots: Collection[ir.Value]
) -> Rule:
    """The rule, but for a layer that has a name among the `named`, or is one of the `first` behind
    the roots."""
    if first is None and not named:
        return rule

    def apply(op: OpBuilder, node: ir.Node, R: ir.Value) -> Cotangents:
        own = next((named[name] for name in names_of(node) if name in named), None)
        if own is None and first is not None and is_first(node, roots):
            own = first
        return (own or rule)(op, node, R)

    return apply
