"""The node tests of the installed onnx as models: what is differentiated, and what is given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, numpy_helper

from onnxplain.reference.float64 import FLOATS

Array = npt.NDArray[Any]

PARAMETERS = {
    "Bernoulli": [0],
    "Dropout": [1],
    "QuantizeLinear": [1],
    "Resize": [1, 2],
    "RoiAlign": [1],
    "Upsample": [1],
}
"""Inputs of floats that say how to compute, and that nothing flows to, in PyTorch either."""


@dataclass(frozen=True)
class NodeTest:
    """A node test whose inputs and outputs are tensors, some of each of them floats.

    The model takes the inputs `active`, named, all others being initializers; `inputs` and
    `outputs` are the test's arrays by name, floats as float64.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    active: Sequence[str]
    inputs: dict[str, Array]
    outputs: dict[str, Array]


def node_tests() -> Iterator[NodeTest]:
    """Those of the installed onnx through which something may flow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        loaded = load_model_tests(kind="node")
    for case in loaded:
        if case.model is not None and case.data_sets:
            test = _node_test(case.name, case.model, *case.data_sets[0])
            if test is not None:
                yield test


def _node_test(
    name: str, source: onnx.ModelProto, inputs: Sequence[Any], outputs: Sequence[Any]
) -> NodeTest | None:
    model = onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    if not all(isinstance(x, np.ndarray | np.generic) for x in [*inputs, *outputs]):
        return None  # sequences and optional values
    arrays = dict(zip((x.name for x in graph.input), map(np.asarray, inputs), strict=False))
    made = dict(zip((y.name for y in graph.output), map(np.asarray, outputs), strict=False))
    operator = _tested(name, graph)
    fixed = {
        given
        for node in graph.node
        for i, given in enumerate(node.input)
        if i in PARAMETERS.get(node.op_type, [])
    }
    active = [x.name for x in graph.input if _is_float(x) and x.name not in fixed]
    if not active or not any(_is_float(y) for y in graph.output):
        return None
    kept = [x for x in graph.input if x.name in active]
    for x in graph.input:
        if x.name not in active:
            tensor = numpy_helper.from_array(arrays[x.name], x.name)
            tensor.data_type = x.type.tensor_type.elem_type
            graph.initializer.append(tensor)
    del graph.input[:]
    graph.input.extend(kept)
    widened = {k: _wide(v) for k, v in arrays.items() if k in active}
    return NodeTest(name, operator, model, active, widened, {k: _wide(v) for k, v in made.items()})


def _tested(name: str, graph: GraphProto) -> str:
    """The operator that a test is of; an expanded one is named after what was expanded."""
    if len(graph.node) == 1:
        return graph.node[0].op_type
    words = "".join(word for word in name.removeprefix("test_").split("_"))
    named = [s.name for s in onnx.defs.get_all_schemas() if words.startswith(s.name.lower())]
    return max(named, key=len, default=graph.node[-1].op_type)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in FLOATS


def _wide(array: Array) -> Array:
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float64) if is_float else array
