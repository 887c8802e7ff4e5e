"""Mutants that are nearly models."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto, helper

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
SIZES = (0, 1, 2, 3, 7, -1, 2**31, 2**62)
VALUES: tuple[Any, ...] = (0, -1, 1.5, "x", None, [], {}, [[]], 1e400, "\x1b[2J", True, 10**30)


def mutant(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """A copy with one to three changes, and now and then some of its bytes changed too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice([1, 1, 2, 3])):
        rng.choice(CHANGES)(copy, rng)
    data = bytearray(copy.SerializeToString())
    if rng.random() < 0.15:
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _nodes(holder: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Those of a graph or function and of the graphs in them."""
    for node in holder.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    functions = (node for function in model.functions for node in _nodes(function))
    return rng.choice([*_nodes(model.graph), *functions])


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(OPERATORS)


def _similar(model: onnx.ModelProto, rng: random.Random) -> None:
    """An operator that takes as many inputs and fewer attributes."""
    node = _node(model, rng)
    names = {attribute.name for attribute in node.attribute}
    fits = [
        name
        for name in OPERATORS
        if (schema := onnx.defs.get_schema(name)).min_input <= len(node.input) <= schema.max_input
        and schema.min_output <= len(node.output) <= schema.max_output
    ]
    if not fits:
        return
    node.op_type = rng.choice(fits)
    known = onnx.defs.get_schema(node.op_type).attributes
    kept = [attribute for attribute in node.attribute if attribute.name in names & known.keys()]
    del node.attribute[:]
    node.attribute.extend(kept)


def _operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        names = [tensor.name for tensor in model.graph.initializer]
        names += [name for other in model.graph.node for name in other.output]
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nothing"])


def _shape(model: onnx.ModelProto, rng: random.Random) -> None:
    sizes = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    rng.choice(model.graph.initializer).dims[:] = sizes


def _element(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(model.graph.initializer).data_type = rng.randrange(24)


def _numbers(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    data = bytearray(tensor.raw_data)
    for _ in range(4 if data else 0):
        data[rng.randrange(len(data))] = rng.choice([0, 127, 128, 255])
    tensor.raw_data = bytes(data)


def _elsewhere(model: onnx.ModelProto, rng: random.Random) -> None:
    """Weights in another file."""
    tensor = rng.choice(model.graph.initializer)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = rng.choice(["../secret", "/etc/passwd", "/dev/zero", "mutant.onnx", ".", "", "\0"])
    tensor.external_data.add(key="location", value=location)
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            tensor.external_data.add(key=key, value=str(rng.choice([*SIZES, "x"])))


def _setting(model: onnx.ModelProto, rng: random.Random) -> None:
    """An attribute that the operator may have."""
    node = _node(model, rng)
    if not onnx.defs.has(node.op_type):
        return
    known = onnx.defs.get_schema(node.op_type).attributes
    if not known:
        return
    name = rng.choice(sorted(known))
    values: dict[int, Any] = {
        AttributeProto.INT: rng.choice(SIZES),
        AttributeProto.INTS: [rng.choice(SIZES) for _ in range(rng.randrange(5))],
        AttributeProto.FLOAT: rng.choice([0.0, -1.0, 0.5, 1e30, float("nan"), float("inf")]),
        AttributeProto.STRING: rng.choice(["", "SAME_UPPER", "VALID", "nearest", "linear", "x"]),
    }
    kind = int(known[name].type)
    if kind in values:
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        made = helper.make_attribute(name, values[kind], attr_type=kind)
        node.attribute.extend([*kept, made])


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.i = rng.choice(SIZES)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)
        if rng.random() < 0.3:
            attribute.type = rng.randrange(15)


def _end(model: onnx.ModelProto, rng: random.Random) -> None:
    dims = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape.dim
    if dims:
        rng.choice(dims).dim_value = rng.choice(SIZES)


def _opset(model: onnx.ModelProto, rng: random.Random) -> None:
    model.opset_import[0].version = rng.choice([-1, 0, 1, 7, 9, 13, 17, 21, 25, 99])


def _missing(model: onnx.ModelProto, rng: random.Random) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _metadata(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.metadata_props:
        return
    entry = rng.choice(model.metadata_props)
    try:
        entry.value = json.dumps(other(json.loads(entry.value), rng))
    except ValueError:
        entry.value = str(rng.choice(VALUES))


def other(entry: Any, rng: random.Random) -> Any:
    """JSON with another value somewhere in it."""
    if isinstance(entry, dict | list) and entry and rng.random() < 0.8:
        key = rng.choice(list(entry)) if isinstance(entry, dict) else rng.randrange(len(entry))
        entry[key] = other(entry[key], rng)
        return entry
    return rng.choice(VALUES)


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_operator, _similar, _operand, _shape, _element, _numbers, _elsewhere, _attribute, _setting),
    *(_end, _opset, _missing, _metadata, _metadata),
)
