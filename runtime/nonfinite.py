"""Which operator makes a NaN or an infinity: the graph is run again, and gives all its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.runtime.onnx_file import Node, nodes, with_outputs
from onnxplain.runtime.sessions.onnx_runtime.kernels import register
from onnxplain.runtime.sessions.onnx_runtime.options import failures, session_options

_Values = Mapping[str, NDArray[Any]]
_Test = Callable[[NDArray[Any]], NDArray[np.bool_]]


def made_by(path: Path, inputs: Mapping[str, NDArray[Any]], outputs: list[str]) -> str:
    """Where NaN or infinity begins, in words, when ONNX Runtime runs the graph on the processor.

    All values of the graph are in memory at once.

    Args:
        path: a graph.
        inputs: of one run, by name; one image suffices.
        outputs: the graph's outputs to trace back from, in this order.

    Raises:
        BackendError: ONNX Runtime cannot run it so.
    """
    with failures():
        return _made_by(path, inputs, outputs)


def _made_by(path: Path, inputs: Mapping[str, NDArray[Any]], outputs: list[str]) -> str:
    import onnxruntime

    graph = nodes(path)
    made = {value: node for node in graph for value in node.outputs if value}
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
    )
    register(options, path)
    constants = {value for node in graph for value in node.inputs if value} - made.keys()
    known = [*made, *sorted(constants - inputs.keys())]
    session = onnxruntime.InferenceSession(
        with_outputs(path, known), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(made, session.run(list(made), dict(inputs)), strict=True))
    for output in outputs:
        for test, what in ((np.isnan, "NaN"), (np.isinf, "infinity")):
            if _is(values, output, test):
                node = _maker(values, made, output, test)
                weights = [name for name in node.inputs if name not in values and name in known]
                if weights:  # of no names, all would be given
                    values |= zip(weights, session.run(weights, dict(inputs)), strict=True)
                return _told(values, made, node, what)
    return "it is finite in float32 on the processor"


def _maker(values: _Values, made: Mapping[str, Node], value: str, test: _Test) -> Node:
    """The node from which on the test holds, on a way to `value`."""
    while True:
        node = made[value]
        before = [name for name in node.inputs if name in made and _is(values, name, test)]
        if not before:
            return node
        value = before[0]


def _told(values: _Values, made: Mapping[str, Node], node: Node, what: str) -> str:
    name = f"{node.operator} '{node.name or node.outputs[0]}'"
    for weight in node.inputs:
        if weight not in made and not _is(values, weight, np.isfinite, np.all):
            return f"{name} has weights, '{weight}', that are not finite"
    infinite = [x for x in node.inputs if x in made and _is(values, x, np.isinf)]
    if infinite and what == "NaN":
        first = _maker(values, made, infinite[0], np.isinf)
        return (
            f"{name} makes NaN of the infinity of {first.operator} "
            f"'{first.name or first.outputs[0]}'"
        )
    return f"{name} makes {what} of finite numbers"


def _is(values: _Values, name: str, test: _Test, of: Callable[..., Any] = np.any) -> bool:
    """Whether the test holds for any number of a value (or all); values of other kinds are fine."""
    value = values.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return of is np.all
    return bool(of(test(value)))
