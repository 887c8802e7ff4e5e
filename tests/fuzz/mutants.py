"""Small networks and what becomes of them: mutants that are nearly models.

By hand, for hours: `python -m tests.fuzz.mutants export 1 3600` (or `explain`; a seed, and seconds)
prints how many there were, how many became explanations and how many ended in an error of
onnxplain's own, and every other error with the file that leads to it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnxplain
from onnxplain.errors import OnnxplainError

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
SIZES = (0, 1, 2, 3, 7, -1, 2**31, 2**62)
VALUES: tuple[Any, ...] = (0, -1, 1.5, "x", None, [], {}, [[]], 1e400, "\x1b[2J", True, 10**30)


def network() -> onnx.ModelProto:
    """A convolution, a norm, a pool, a gate and a linear layer."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        **{name: np.full(4, value, np.float32) for name, value in (("s", 1), ("v", 1))},
        **{name: np.zeros(4, np.float32) for name in ("b1", "b", "m")},
        "w2": rng.normal(size=(16, 5)).astype(np.float32),
        "b2": np.zeros(5, np.float32),
        "shape": np.array([0, -1]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["p"], ["g"]),
        helper.make_node("Mul", ["p", "g"], ["q"]),
        helper.make_node("Reshape", ["q", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"]),
        helper.make_node("Softmax", ["y"], ["z"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


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


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(model.graph.node).op_type = rng.choice(OPERATORS)


def _operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
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


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
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
        entry.value = json.dumps(_other(json.loads(entry.value), rng))
    except ValueError:
        entry.value = str(rng.choice(VALUES))


def _other(entry: Any, rng: random.Random) -> Any:
    """JSON with another value somewhere in it."""
    if isinstance(entry, dict | list) and entry and rng.random() < 0.8:
        key = rng.choice(list(entry)) if isinstance(entry, dict) else rng.randrange(len(entry))
        entry[key] = _other(entry[key], rng)
        return entry
    return rng.choice(VALUES)


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_operator, _operand, _shape, _element, _numbers, _attribute, _end, _opset, _missing),
    *(_metadata, _metadata),
)


def exported(path: Path) -> None:
    """A network's file becomes an explanation."""
    graph = path.with_name("explain.onnx")
    onnxplain.export(path, graph, method="excitation")
    explained(graph)


def explained(path: Path) -> None:
    """An explain graph explains a picture."""
    explainer = onnxplain.load(path, "cpu")
    explainer(np.zeros((9, 11, 3), np.uint8)).labels()


def campaign(
    attempt: Callable[[Path], None], model: onnx.ModelProto, seed: int, going: Callable[[int], bool]
) -> Counter[str]:
    """How mutants end: "explained", "refused", or an error that is not onnxplain's own."""
    rng, ends = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.onnx")
        while going(ends.total()):
            path.write_bytes(mutant(model, rng))
            try:
                attempt(path)
                ends["explained"] += 1
            except OnnxplainError:
                ends["refused"] += 1
            except Exception as error:
                end = f"{type(error).__name__}: {error}"
                if end not in ends:
                    kept = Path(tempfile.gettempdir(), f"mutant-{seed}-{len(ends)}.onnx")
                    kept.write_bytes(path.read_bytes())
                    print(f"{kept}: {end}", flush=True)
                ends[end] += 1
    return ends


def explain_graph(folder: Path) -> onnx.ModelProto:
    """That of the network."""
    source, graph = folder / "source.onnx", folder / "explain.onnx"
    onnx.save(network(), source)
    onnxplain.export(source, graph)
    return onnx.load(graph)


if __name__ == "__main__":
    what, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    late = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        model = network() if what == "export" else explain_graph(Path(folder))
        attempt = exported if what == "export" else explained
        print(campaign(attempt, model, seed, lambda _: time.monotonic() < late))
