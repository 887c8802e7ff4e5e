"""ONNX files written by hand, and what ONNX Runtime says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import onnxplain
from onnxplain.runtime import Explanation

Array = np.ndarray
node = helper.make_node


def images(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Any],
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    dtype: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
) -> Path:
    """A graph from `x` of the given shape; the outputs' shapes are left to be inferred."""
    graph = helper.make_graph(
        list(nodes),
        "handmade",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8 if opset < 20 else onnx.helper.find_min_ir_version_for(imports, True)
    onnx.save(model, path)
    return path


def head(of: str, features: int, classes: int = 4) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Flatten → MatMul, from the value `of` to the logits `y`."""
    weight = images(features, classes, seed=9) / np.float32(features**0.5)
    return [node("Flatten", [of], ["flat"]), node("MatMul", ["flat", "W"], ["y"])], {"W": weight}


def source_outputs(path: Path, x: Array, optimised: bool = True) -> list[Array]:
    """The source's own outputs from ONNX Runtime."""
    return session(path, optimised).run(None, {session(path).get_inputs()[0].name: x})


def session(model: Path | bytes, optimised: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def explain(
    source: Path, x: Array, method: str = "gradient", target: int = 1, **options: Any
) -> Explanation:
    """Export beside the source and explain one class."""
    path = source.with_suffix(f".{method}.onnx")
    onnxplain.export(source, path, method=method, **options)
    onnx.checker.check_model(path, full_check=True)
    return onnxplain.load(path, threads=1)(x, target)


def operators(path: Path) -> Counter[str]:
    """How often each operator occurs, those outside the standard domain with their domain."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in nodes)


def cosine(a: Array, b: Array) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
