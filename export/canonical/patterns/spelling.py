"""What the recognisers share: reading constants, walking the graph, replacing many nodes by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from onnxplain import initializers
from onnxplain.export.tensors import array_of, number_of, rank


def uniform(value: ir.Value | None) -> float | None:
    """The number that all elements of a constant are, or of one stretched to an open shape."""
    node = None if value is None else value.producer()
    if node is not None and node.domain == "" and node.op_type == "Expand":
        return uniform(node.inputs[0])
    if node is not None and node.domain == "" and node.op_type == "ConstantOfShape":
        filled = node.attributes.get_tensor("value", ir.tensor(np.zeros(1, np.float32)))
        return float(filled.numpy().item())
    numbers = array_of(value)
    if numbers is None or not numbers.size or not np.issubdtype(numbers.dtype, np.number):
        return number_of(value)
    first = numbers.flat[0]
    return float(first) if first == numbers.flat[-1] and (numbers == first).all() else None


def made_by(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that computes `value`, if it is one of these standard operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.domain == "" and node.op_type in operators else None


def single_user(value: ir.Value) -> ir.Node | None:
    """The only node that uses `value`; `None` if there are several, or if `value` is an output."""
    users = {use.node for use in value.uses()}
    return users.pop() if len(users) == 1 and not value.is_graph_output() else None


def other_operand(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other of a node's two inputs; `value` itself if it is both inputs."""
    a, b = node.inputs
    return b if a is value else a


def constant_operand(node: ir.Node | None, *operators: str) -> tuple[ir.Value, np.ndarray] | None:
    """A commutative node with one constant operand: the other operand and the constant."""
    if node is None or node.domain != "" or node.op_type not in operators or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    for x, c in ((a, b), (b, a)):
        constant = array_of(c)
        if x is not None and constant is not None:
            return x, constant
    return None


def axes_of(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a Reduce node that keeps them, counted from the end and sorted."""
    x = node.inputs[0]
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or axes is None or not axes.size or node.attributes.get_int("keepdims", 1) != 1:
        return None
    return tuple(sorted(int(axis) % rank(x) - rank(x) for axis in axes))


def self_contained(result: ir.Value, x: ir.Value) -> bool:
    """Whether everything computed from `x` on the way to `result` serves nothing else."""
    inside: set[ir.Node] = set()
    open_values = [result]
    while open_values:
        value = open_values.pop()
        node = value.producer()
        if value is x or node is None or node in inside:
            continue
        if value is not result and value.is_graph_output():
            return False
        inside.add(node)
        open_values += [v for v in node.inputs if v is not None]
    return all(
        use.node in inside
        for node in inside
        for value in node.outputs
        if value is not result
        for use in value.uses()
    )


Attributes: TypeAlias = Mapping[str, float | int | str | Sequence[int]]
_NONE: Attributes = {}


def insert(
    before: ir.Value,
    operator: str,
    inputs: Sequence[ir.Value],
    attributes: Attributes,
    shape: ir.Shape | None,
) -> ir.Value:
    """The output of a new node, put before that of `before` and with the same dtype.

    `operator` is a standard one or "onnxplain::" and a composite's name.
    """
    domain, _, op_type = operator.rpartition("::")
    node, place = ir.node(op_type, inputs, attributes, domain=domain), before.producer()
    assert place is not None
    assert isinstance(place.graph, ir.Graph)
    place.graph.insert_before(place, node)
    new = node.outputs[0]
    new.type, new.shape = before.type, shape
    node.metadata_props.update(place.metadata_props)  # such as the module it stood in
    return new


def replace(
    result: ir.Value, operator: str, inputs: Sequence[ir.Value], attributes: Attributes = _NONE
) -> ir.Node:
    """Compute `result` with one new node, which is returned; what it replaces is left unused."""
    new = insert(result, operator, inputs, attributes, result.shape)
    new.name, result.name = result.name, None
    new.metadata_props.update(result.metadata_props)
    ir.convenience.replace_all_uses_with(result, new, replace_graph_outputs=True)
    node = new.producer()
    assert node is not None
    return node


def initializer(graph: ir.Graph, data: np.ndarray, like: ir.Value, name: str) -> ir.Value:
    """A new constant with the dtype of `like`, named after what it is for."""
    dtype = like.dtype or ir.DataType.FLOAT
    base, count = f"pattern.{name}", 0
    while (name := f"{base}_{count}") in graph.initializers:
        count += 1
    return initializers.initializer(graph, name, data.astype(dtype.numpy()), dtype)
