"""Small graphs, each of one thing that networks have: which package differentiates it right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxplain.bench.rivals.gradients import said, session
from onnxplain.bench.rivals.packages import Package, packages
from onnxplain.reference.float64 import evaluate_in_float64, in_float64

Array = npt.NDArray[Any]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RIGHT, TOLERANCE, FLOAT32, STEP = "right", 1e-6, 1e-3, 1e-6
node = helper.make_node


@dataclass(frozen=True)
class Probe:
    """A graph x → y, its constants and other inputs, and inputs to differentiate it at."""

    nodes: Sequence[onnx.NodeProto]
    shape: Sequence[int | str]
    at: Sequence[int]
    weights: Mapping[str, Array] = field(default_factory=dict)
    others: Mapping[str, tuple[int, Array]] = field(default_factory=dict)
    result: Sequence[int] | None = None  # the shape of y, where it cannot be inferred

    def model(self) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        inputs = [value("x", FLOAT, list(self.shape))]
        inputs += [value(name, dtype, x.shape) for name, (dtype, x) in self.others.items()]
        constants = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, "probe", inputs, [value("y", FLOAT, self.result)], constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _loop() -> Probe:
    """Doubled and bent, as many times as an input says."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), node("Sin", ["w"], ["z"]), node("Identity", ["c"], ["d"])],
        "body",
        [value("i", INT64, []), value("c", BOOL, []), value("v", FLOAT, [2, 3])],
        [value("d", BOOL, []), value("z", FLOAT, [2, 3])],
    )
    nodes = [node("Loop", ["rounds", "", "x"], ["y"], body=body)]
    return Probe(nodes, [2, 3], [2, 3], others={"rounds": (INT64, np.array(3))}, result=[2, 3])


_KERNEL = {"W": _random(4, 3, 3, 3)}
_CONV = node("Conv", ["x", "W"], ["y"], strides=[2, 2], pads=[0, 0, 1, 1])

PROBES: Mapping[str, Probe] = {
    "convolution": Probe([node("Conv", ["x", "W"], ["y"])], [1, 3, 8, 8], [1, 3, 8, 8], _KERNEL),
    "convolution, open batch": Probe(
        [node("Conv", ["x", "W"], ["y"])], ["N", 3, 8, 8], [2, 3, 8, 8], _KERNEL
    ),
    "convolution, uneven padding": Probe([_CONV], [1, 3, 8, 8], [1, 3, 8, 8], _KERNEL),
    "convolution, auto_pad SAME_UPPER": Probe(
        [node("Conv", ["x", "W"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        [1, 3, 8, 8],
        [1, 3, 8, 8],
        _KERNEL,
    ),
    "transposed convolution, open batch": Probe(
        [node("ConvTranspose", ["x", "W"], ["y"], strides=[2, 2], output_padding=[1, 1])],
        ["N", 4, 5, 5],
        [2, 4, 5, 5],
        {"W": _random(4, 3, 3, 3)},
    ),
    "max pool, open batch": Probe(
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)],
        ["N", 2, 7, 7],
        [2, 2, 7, 7],
    ),
    "average pool, ceil_mode": Probe(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        [1, 2, 8, 8],
        [1, 2, 8, 8],
    ),
    "layer norm, open batch": Probe(
        [node("LayerNormalization", ["x", "g", "b"], ["y"])],
        ["N", 4, 6],
        [2, 4, 6],
        {"g": _random(6), "b": _random(6, seed=1)},
    ),
    "slices, open batch": Probe(
        [
            node("Slice", ["x", "from", "to", "axis"], ["part"]),
            node("Mul", ["part", "part"], ["y"]),
        ],
        ["N", 6],
        [2, 6],
        {"from": np.array([1]), "to": np.array([4]), "axis": np.array([1])},
    ),
    "LSTM": Probe(
        [node("LSTM", ["x", "W", "R"], ["y"], hidden_size=3)],
        [5, 2, 4],
        [5, 2, 4],
        {"W": _random(1, 12, 4), "R": _random(1, 12, 3)},
    ),
    "loop, as many rounds as an input says": _loop(),
}


def probe(name: str, folder: Path) -> dict[str, str]:
    """Package → "right", or what is wrong with its gradient, or why it makes none."""
    case = PROBES[name]
    source = folder / "probe.onnx"
    onnx.save(case.model(), source)
    return {
        package.name: _verdict(case, package, source, folder / f"{package.name}.onnx")
        for package in packages()
    }


def _verdict(case: Probe, package: Package, source: Path, path: Path) -> str:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.at)
    others = {name: array for name, (_, array) in case.others.items()}

    def run(x: Array) -> Array:
        return _in_float64(source, {"x": x, **others}, "y")

    seed, v = rng.standard_normal(run(x).shape), rng.standard_normal(x.shape)
    slope = float((seed * (run(x + STEP * v) - run(x - STEP * v))).sum() / (2 * STEP))
    try:
        package.write(source, path)
    except Exception as problem:
        return f"refused: {said(problem)}"
    given = {"x": x, **others, package.seed: package.seed_of(seed)}
    errors: list[float] = []
    for evaluate, tolerance in ((_in_float64, TOLERANCE), (_in_float32, FLOAT32)):
        try:
            found = package.gradient_of(evaluate(path, given, package.gradient))
        except Exception:
            continue
        errors.append(abs(float((found * v).sum()) - slope) / abs(slope))
        if errors[-1] < tolerance:  # a wrong one is wrong in both
            return RIGHT
    return f"wrong, by {min(errors):.0%}" if errors else "does not run"


def _in_float64(path: Path, given: Mapping[str, Array], output: str) -> Array:
    """By ONNX Runtime, where it has all operators of float64, else by the reference evaluator."""
    try:
        wide = in_float64(onnx.load(path)).SerializeToString()
        return np.asarray(session(wide, 1).run([output], given)[0])
    except Exception:
        return evaluate_in_float64(path, given, [output])[output]


def _in_float32(path: Path, given: Mapping[str, Array], output: str) -> Array:
    narrow = {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in given.items()}
    return np.asarray(session(path, 1).run([output], narrow)[0])
