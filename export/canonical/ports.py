"""A graph of any kind made ready for a sweep: between which values, and the rest as it was."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import between, dependents
from onnxplain.export.canonical.control_flow import refuse_sequences
from onnxplain.export.canonical.declared import open_unknown
from onnxplain.export.canonical.general import opened, settle, spell
from onnxplain.export.canonical.half import HALF
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.canonical.quantisers import recognise_dynamic_quantisers
from onnxplain.export.tensors import dims
from onnxplain.suggest import nearest


@dataclass(frozen=True)
class Forward:
    """A canonical forward pass: the network's own inputs and outputs, and values within.

    `of` are differentiated with respect to `wrt`, both by their names in the source. A value of
    `wrt` that is no input of the graph stands behind an Identity of its own (`wrt[name]` is its
    result), so that what else is equal to it stays apart; `join` takes it away. `halves` are the
    inputs and outputs that the source has in half precision, in which `narrow` puts them again.
    `patterns` are those recognised, by name.
    """

    model: ir.Model
    of: Mapping[str, ir.Value]
    wrt: Mapping[str, ir.Value]
    halves: Mapping[str, ir.DataType]
    patterns: Mapping[str, int]


def forward_between(
    model: ir.Model,
    of: Sequence[str] | None,
    wrt: Sequence[str] | None,
    sizes: Mapping[str, int],
) -> Forward:
    """Bring a graph into the canonical form; the model given is consumed.

    Args:
        of: names of what is differentiated; None for the only output of floats.
        wrt: names of what it is differentiated by; None for every input of floats that it depends
            on.
        sizes: numbers for open sizes, by name.

    Raises:
        SourceError: no such value, one of whole numbers, or one that nothing depends on.
        NoRuleError: what no cotangent can pass: a sequence whose length the data decides, an
            operator of ONNX Runtime's own that has no form in ONNX's.
    """
    open_unknown(model.graph)
    fix_open_sizes(model.graph, sizes)
    ports = [*model.graph.inputs, *model.graph.outputs]
    halves = {str(v.name): v.dtype for v in ports if v.dtype in HALF}
    model, was_half = opened(model)
    graph = model.graph
    ends = _chosen_ends(graph, of)
    roots = _chosen_roots(graph, wrt, ends)
    _check_dependence(graph, roots, ends)
    inner = {name: _apart(graph, x) for name, x in roots.items() if x not in graph.inputs}
    starts = [inner.get(name, x) for name, x in roots.items()]
    path = between(graph, starts, ends.values())
    ends = _spelled(model, ends, aside={*graph} - {*path})
    own, names = list(graph.outputs), [str(y.name) for y in graph.outputs]
    graph.outputs[:] = [y for y in own if y not in graph.inputs]  # which would be renamed
    kept = {value: i for i, value in enumerate(graph.outputs)}
    for value in [*ends.values(), *inner.values()]:  # which no simplification may remove
        if value not in kept and value not in graph.inputs:
            kept[value] = len(graph.outputs)
            graph.outputs.append(value)
    double = any(x.dtype == ir.DataType.DOUBLE for x in starts)
    settle(model, [x for x in graph.inputs if x.shape is not None], name_all=True)
    recognise_dynamic_quantisers(graph)
    patterns = recognise(model, was_half, exact=double)
    now = list(graph.outputs)
    inputs = {str(x.name): x for x in graph.inputs}

    def found(value: ir.Value) -> ir.Value:
        return now[kept[value]] if value in kept else inputs[str(value.name)]

    graph.outputs[:] = [found(y) for y in own]
    _under_their_names(graph, names)
    starts_now = {name: found(x) for name, x in zip(roots, starts, strict=True)}
    for name in inner:
        apart, starts_now[name] = starts_now[name], _identity(graph, starts_now[name])
        now = [starts_now[name] if y is apart else y for y in now]
    ends_now = {name: starts_now.get(name) or found(y) for name, y in ends.items()}
    both = dict.fromkeys([*starts_now.values(), *ends_now.values()])
    graph.outputs.extend(v for v in both if not v.is_graph_output())  # read by nothing, it may be
    common.RemoveUnusedNodesPass()(model)
    graph.outputs[:] = list(graph.outputs)[: len(own)]
    refuse_sequences(between(graph, starts_now.values(), ends_now.values()))
    return Forward(model, ends_now, starts_now, halves, patterns)


def _spelled(
    model: ir.Model, ends: Mapping[str, ir.Value], aside: Container[ir.Node]
) -> dict[str, ir.Value]:
    """The ends in the graph spelled in standard operators, where others may stand for them."""
    outputs, first = model.graph.outputs, len(model.graph.outputs)
    outputs.extend({end: None for end in ends.values() if end not in outputs})
    places = {name: outputs.index(end) for name, end in ends.items()}
    spell(model, aside)
    found = {name: outputs[place] for name, place in places.items()}
    outputs[:] = list(outputs)[:first]
    return found


def fix_open_sizes(graph: ir.Graph, sizes: Mapping[str, int]) -> None:
    """Give every open size of the inputs a name, and those in `sizes` their number.

    Raises:
        SourceError: there is no such size, or a number that is none.
    """
    names = {}
    for x in graph.inputs:
        if x.shape is None or x.name in graph.initializers:
            continue
        shape = dims(x)
        for axis, n in enumerate(shape):
            if isinstance(n, ir.SymbolicDim) and n.value is None:
                shape[axis] = ir.SymbolicDim(f"{x.name}_{axis}")
        x.shape = ir.Shape(shape)
        names.update({str(n.value): x for n in shape if isinstance(n, ir.SymbolicDim)})
    for name, size in sizes.items():
        if name not in names:
            raise SourceError(f"the file leaves no size {name!r} open: {nearest(name, names)}")
        if size < 1:
            raise SourceError(f"sizes=: {name!r} is a number of elements, not {size}")
    for value in [*graph.inputs, *graph.outputs, *(y for node in graph for y in node.outputs)]:
        if value.shape is not None and sizes:
            value.shape = ir.Shape(
                [n if isinstance(n, int) else sizes.get(str(n.value), n) for n in value.shape]
            )


def _chosen_ends(graph: ir.Graph, names: Sequence[str] | None) -> dict[str, ir.Value]:
    if names is not None:
        return {name: _named(graph, name, "of") for name in names}
    floats = {str(y.name): y for y in graph.outputs if _is_float(y)}
    if len(floats) != 1:
        listing = ", ".join(_described(y) for y in graph.outputs)
        raise SourceError(f"choose what to differentiate with of=; the outputs are: {listing}")
    return floats


def _chosen_roots(
    graph: ir.Graph, names: Sequence[str] | None, ends: Mapping[str, ir.Value]
) -> dict[str, ir.Value]:
    if names is not None:
        return {name: _named(graph, name, "wrt") for name in names}
    floats = {str(x.name): x for x in graph.inputs if _is_float(x)}
    found = {name: x for name, x in floats.items() if between(graph, [x], ends.values())}
    if not found:
        listing = ", ".join(_described(x) for x in graph.inputs) or "none"
        raise SourceError(
            f"{_list(ends)} depends on no input of floats; choose an inner value or a weight with "
            f"wrt=; the inputs are: {listing}"
        )
    return found


def _named(graph: ir.Graph, name: str, option: str) -> ir.Value:
    """The graph's value of floats of that name.

    Raises:
        SourceError: there is none.
    """
    own = [*graph.outputs, *graph.inputs] if option == "of" else [*graph.inputs, *graph.outputs]
    values = {str(v.name): v for v in [*own, *graph.initializers.values()]}
    values |= {str(y.name): y for node in graph for y in node.outputs if y.name}
    if name not in values:
        raise SourceError(f"{option}=: no value {name!r} in the network; {nearest(name, values)}")
    value = values[name]
    if value.dtype in HALF:  # stored so, and widened
        value = values[f"{name}.float32"]
    if _is_float(value):
        return value
    ends = graph.outputs if option == "wrt" else ()
    made = (y for use in value.uses() for y in use.node.outputs if y not in ends)
    floats = [str(y.name) for y in made if _is_float(y)]
    instead = f"; {' and '.join(floats)}, made of it, has" if floats else ""
    what = "of no floats" if isinstance(value.type, ir.TensorType) else "a sequence, no tensor,"
    raise SourceError(f"{option}=: {_described(value)} is {what} and has no derivative{instead}")


def _is_float(value: ir.Value) -> bool:
    tensor = isinstance(value.type, ir.TensorType)  # no sequence of them
    return tensor and value.dtype is not None and value.dtype.is_floating_point()


def _described(value: ir.Value) -> str:
    dtype = "" if value.dtype is None else f" {str(value.dtype).lower()}"
    return f"{value.name!r}{dtype}{'' if value.shape is None else str(value.shape)}"


def _list(names: Mapping[str, ir.Value]) -> str:
    return " and ".join(map(repr, names))


def _check_dependence(
    graph: ir.Graph, roots: Mapping[str, ir.Value], ends: Mapping[str, ir.Value]
) -> None:
    for name, x in roots.items():
        after = dependents(graph, [x])
        if not any(y in after for y in ends.values()):
            raise SourceError(
                f"{_list(ends)} does not depend on {name!r}, beyond its shape; leave it out of wrt="
            )


def _apart(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A value in place of this one in all that reads it, which no simplification takes for it.

    It is a choice between the value and itself, by an input that nothing is known of.
    """
    choice = ir.Value(
        name=f"{value.name}.apart", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([])
    )
    graph.inputs.append(choice)
    uses = list(value.uses())
    node = ir.node("Where", [choice, value, value])
    producer, y = value.producer(), node.outputs[0]
    y.name, y.type, y.shape = f"{value.name}.chosen", value.type, value.shape
    for user, index in uses:
        user.replace_input_with(index, y)
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    return y


def _identity(graph: ir.Graph, apart: ir.Value) -> ir.Value:
    """The result of an Identity in place of such a choice, whose input goes."""
    choice = apart.producer()
    assert choice is not None
    node = ir.node("Identity", [choice.inputs[1]])
    y = node.outputs[0]
    y.name, y.type, y.shape = apart.name, apart.type, apart.shape
    graph.insert_before(choice, node)
    ir.convenience.replace_all_uses_with(apart, y, replace_graph_outputs=True)
    asked = choice.inputs[0]
    graph.remove(choice, safe=True)
    assert asked is not None
    graph.inputs.remove(asked)
    return y


def _under_their_names(graph: ir.Graph, names: Sequence[str]) -> None:
    """Outputs that have become one value stand apart again, each under its own name."""
    for i, (y, name) in enumerate(zip(list(graph.outputs), names, strict=True)):
        if y.name != name:
            node = ir.node("Identity", [y])
            same = node.outputs[0]
            same.name, same.type, same.shape = name, y.type, y.shape
            graph.append(node)
            graph.outputs[i] = same


def join(graph: ir.Graph, wrt: Mapping[str, ir.Value]) -> None:
    """Take away the Identities behind which inner values stand, but for outputs of the network."""
    for value in wrt.values():
        node = value.producer()
        if node is not None and not value.is_graph_output() and (x := node.inputs[0]) is not None:
            ir.convenience.replace_all_uses_with(value, x)
            graph.remove(node, safe=True)


def narrow(graph: ir.Graph, halves: Mapping[str, ir.DataType]) -> None:
    """Put the network's inputs and outputs in half precision, as the source has them."""
    for i, x in enumerate(list(graph.inputs)):
        if (half := halves.get(str(x.name))) is not None:
            given = ir.Value(name=x.name, type=ir.TensorType(half), shape=x.shape)
            cast = ir.node("Cast", [given], {"to": int(ir.DataType.FLOAT)})
            wide = cast.outputs[0]
            wide.name, wide.type, wide.shape = f"{x.name}.float32", x.type, x.shape
            ir.convenience.replace_all_uses_with(x, wide, replace_graph_outputs=True)
            graph.inputs[i] = given
            graph.insert_before(graph[0], cast)
    for i, y in enumerate(list(graph.outputs)):
        if (half := halves.get(str(y.name))) is not None:
            cast = ir.node("Cast", [y], {"to": int(half)})
            put = cast.outputs[0]
            put.name, y.name = y.name, f"{y.name}.float32"
            put.type, put.shape = ir.TensorType(half), y.shape
            graph.append(cast)
            graph.outputs[i] = put
