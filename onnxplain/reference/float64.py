"""An explain graph evaluated in float64: is it right, where float32 rounds a gate open or shut?

A hard gate, a ReLU's in the method "gradient", opens in float32 and not in float64 where its
preactivation lies within rounding of 0; then a right graph and its float64 reference differ. The
same graph in float64 does not.

ONNX Runtime has no float64 kernels for many operators, so this is ONNX's reference evaluator, with
the operators of `float64_operators` in place of those that are slow or not right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxplain.errors import InputError
from onnxplain.reference.float64_control_flow import CONTROL_FLOW
from onnxplain.reference.float64_operators import OPERATORS
from onnxplain.reference.forward import read_by

Array = npt.NDArray[Any]
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Of a model of any floating-point type; it computes in that of the model.

    Raises:
        InputError: the model has an operator that is neither ONNX's nor one of those here.
    """
    try:
        return ReferenceEvaluator(model, new_ops=[*OPERATORS, *CONTROL_FLOW])
    except NotImplementedError as error:
        raise InputError(f"no reference here computes it in float64: {error}") from error


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of a model, in their order."""
    return evaluator(model).run(None, dict(feeds))


def evaluate_in_float64(
    path: Path, feeds: Mapping[str, npt.ArrayLike], outputs: Sequence[str] | None = None
) -> dict[str, Array]:
    """Run an explain graph in float64.

    Args:
        path: of a float32 explain graph.
        feeds: its inputs by name, of the shapes that it takes; floats of any precision. What the
            outputs do not need may be left out.
        outputs: those wanted; all by default.

    Returns:
        The outputs by name, float64. What was rounded when the graph was written stays so, a
        folded batch norm's weights and a temperature of 0.3: some 10⁻⁷ of the pullback.

    Raises:
        Exception: of any kind, where the reference evaluator has no such operator.
    """
    return run(evaluator(in_float64(onnx.load(path))), feeds, outputs)


def run(
    graph: ReferenceEvaluator,
    feeds: Mapping[str, npt.ArrayLike],
    outputs: Sequence[str] | None = None,
) -> dict[str, Array]:
    """What `evaluate_in_float64` does with a graph, which may be run again."""
    inputs = {name: _widened(np.asarray(array)) for name, array in feeds.items()}
    wanted = graph.output_names if outputs is None else outputs
    nodes = _needed(graph.rt_nodes_, wanted)
    # `graph.run` would keep every activation alive; of a large network they are many GB.
    last = {name: node for node in nodes for name in read_by(node.onnx_node)}
    values: dict[str, Array] = {**graph.rt_inits_, **inputs}
    for node in nodes:
        around = {"context": values} if node.need_context() else {}
        made = node.run(*(values[name] if name else None for name in node.input), **around)
        values.update(zip(node.output, made, strict=False))  # MaxPool's indices are left out
        for name in {*read_by(node.onnx_node), *node.output} - {"", *wanted}:
            if last.get(name, node) is node:
                values.pop(name, None)  # what a body makes by itself is not there
    return {name: values[name] for name in wanted}


def _needed(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """Those of the nodes, in their order, that the outputs depend on."""
    names, found = set(outputs), []
    for node in reversed(nodes):
        if names & set(node.output):
            names.update(read_by(node.onnx_node))
            found.append(node)
    return found[::-1]


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model given, with float64 wherever it had other floats, in its subgraphs too.

    The scales of a Resize stay, as they are float32 whatever is resized.
    """
    _widen_graph(model.graph)
    return model


def _widen_graph(graph: onnx.GraphProto) -> None:
    resizing = (node for node in graph.node if node.op_type in ("Resize", "Upsample"))
    scales = {name for node in resizing for name in node.input[1:3]}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type in FLOATS and value.name not in scales:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        if tensor.name not in scales:
            _widen(tensor)
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # of float32 zeros
            zero = numpy_helper.from_array(np.zeros(1))
            node.attribute.append(onnx.helper.make_attribute("value", zero))
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.type == AttributeProto.TENSOR:
            _widen(attribute.t)
        elif attribute.type == AttributeProto.GRAPH:
            _widen_graph(attribute.g)
        elif attribute.name in ("value_float", "value_floats"):  # of a Constant
            many = attribute.name == "value_floats"
            given = np.array(list(attribute.floats) if many else attribute.f, np.float64)
            attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(given)))
        elif attribute.name in ("to", "dtype") and attribute.i in FLOATS:
            attribute.i = TensorProto.DOUBLE


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in FLOATS:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
