"""The node tests of the installed onnx as models: what is differentiated, and what is given."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.case.utils import import_recursive

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

DRAWING = "RandomUniformLike"
"""It is given a seed, so that it draws the same numbers each time."""


@dataclass(frozen=True)
class NodeTest:
    """A node test whose inputs and outputs are tensors, some of each of them floats.

    `expanded` is the same spelled out, of an operator that ONNX defines by others.
    The model takes the floats among its inputs, all others being initializers; `inputs` and
    `outputs` are the test's arrays by name, floats as float64.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    expanded: onnx.ModelProto | None
    inputs: dict[str, Array]
    outputs: dict[str, Array]


def node_tests(modules: Sequence[str] = ()) -> Iterator[NodeTest]:
    """Those of the installed onnx through which something may flow.

    Args:
        modules: of `onnx.backend.test.case.node`, to load those alone, and what is loaded already.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node

        for name in modules:
            importlib.import_module(f"{node.__name__}.{name}")
        if not modules:
            import_recursive(node)
    tests = {case.name: _node_test(case) for case in node._NodeTestCases}
    for name, test in tests.items():
        if test is not None:
            expanded = tests.get(f"{name}_expanded")
            yield replace(test, expanded=None if expanded is None else expanded.model)


def _node_test(case: TestCase) -> NodeTest | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    for node in graph.node:
        if node.op_type == DRAWING and all(a.name != "seed" for a in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("seed", 0.0))
    given, expected = case.data_sets[0]
    if not all(isinstance(x, np.ndarray | np.generic) for x in [*given, *expected]):
        return None  # sequences and optional values
    arrays = dict(zip((x.name for x in graph.input), map(np.asarray, given), strict=False))
    made = dict(zip((y.name for y in graph.output), map(np.asarray, expected), strict=False))
    operator = _tested(case.name, graph)
    fixed = {
        x
        for node in graph.node
        for i, x in enumerate(node.input)
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
    outputs = {k: _wide(v) for k, v in made.items()}
    return NodeTest(case.name, operator, model, None, widened, outputs)


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
