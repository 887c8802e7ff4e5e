"""What `differentiate` may be asked of networks that are nearly models: a line of options before
the network's bytes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

import onnxplain

from . import mutants
from .seeds import networks

_RIGHT: dict[str, tuple[Any, ...]] = {
    "seed": ("ones", "input"),
    "jacobian": (True, False),
    "second": (True, False),
    "sizes": ({"atoms": 3}, {"N": 2}),
    "prefix": ("my.",),
    "check": (True, False),
    "budget": (1, 2.5),
}
_WRONG: dict[str, tuple[Any, ...]] = {
    "of": (None, "", "nothing", [], 3, "\x1b[2J"),
    "wrt": (None, "", "nothing", [], [["x"]], True),
    "seed": ("zeros", None, 1),
    "jacobian": (1, "no"),
    "second": (None,),
    "sizes": ({"N": 0}, {"N": -1}, {"N": 2**31}, {"nobody": 1}, {"N": "2"}, []),
    "prefix": ("x", "\0", "a" * 300, 1),
    "check": (0,),
    "budget": (1e-4, 0, -1, float("inf"), float("nan"), "2"),
}


def seeds() -> list[onnx.ModelProto]:
    return [*networks(), potential()]


def potential() -> onnx.ModelProto:
    """An energy of atoms at open positions, and a chosen one's distance, in float64."""
    number = np.float64
    constants = {
        "two": np.array(2, number),
        "soft": np.array(0.1, number),
        "cut": np.array(3, number),
        "none": np.array(0, number),
        "across": np.array([1]),
        "down": np.array([0]),
        "last": np.array([-1]),
        "first": np.array(0),
    }
    nodes = [
        make_node("Unsqueeze", ["positions", "across"], ["p"]),
        make_node("Unsqueeze", ["positions", "down"], ["q"]),
        make_node("Sub", ["p", "q"], ["d"]),
        make_node("Pow", ["d", "two"], ["d2"]),
        make_node("ReduceSum", ["d2", "last"], ["s"], keepdims=0),
        make_node("Add", ["s", "soft"], ["s1"]),
        make_node("Sqrt", ["s1"], ["r"]),
        make_node("Less", ["r", "cut"], ["near"]),
        make_node("Reciprocal", ["r"], ["u"]),
        make_node("Mul", ["u", "charge"], ["u1"]),
        make_node("Where", ["near", "u1", "none"], ["u2"]),
        make_node("ReduceSum", ["u2"], ["energy"], keepdims=0),
        make_node("Gather", ["r", "first"], ["distances"], axis=0),
        make_node("CumSum", ["distances", "first"], ["sums"]),
    ]
    kind = TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "potential",
        [
            make_tensor_value_info("positions", kind, ["atoms", 3]),
            make_tensor_value_info("charge", kind, []),
        ],
        [
            make_tensor_value_info("energy", kind, []),
            make_tensor_value_info("sums", kind, ["atoms"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def mutant(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """Options, most of which fit the model, before a mutant of it; now and then before itself."""
    data = mutants.mutant(model, rng) if rng.random() < 0.8 else model.SerializeToString()
    return json.dumps(_options(model, rng)).encode() + b"\n" + data


def attempt(path: Path) -> None:
    """
    Raises:
        InputError, SourceError: as `differentiate` raises them.
    """
    line, _, data = path.read_bytes().partition(b"\n")
    network = path.with_name("network.onnx")
    network.write_bytes(data)
    onnxplain.differentiate(network, path.with_name("derivatives.onnx"), **json.loads(line))


def _options(model: onnx.ModelProto, rng: random.Random) -> dict[str, Any]:
    graph = model.graph
    inner = [name for node in graph.node for name in node.output]
    outputs, inputs = ([value.name for value in ends] for ends in (graph.output, graph.input))
    weights = [tensor.name for tensor in graph.initializer]
    given: dict[str, Any] = {}
    if len(outputs) > 1 or rng.random() < 0.5:
        given["of"] = _some([*outputs, *outputs, *inner], rng)
    if rng.random() < 0.5:
        given["wrt"] = _some([*inputs, *inputs, *weights, *inner], rng)
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        of = _WRONG if rng.random() < 0.1 else _RIGHT
        name = rng.choice(sorted(of))
        given[name] = rng.choice(of[name])
    return given


def _some(names: list[str], rng: random.Random) -> str | list[str]:
    count = rng.choice([1, 1, 1, 2, 3])
    return rng.choice(names) if count == 1 else rng.sample(names, min(count, len(names)))
