"""Small classifiers of [N, 3, 8, 8] of several kinds, and explain graphs of them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.helper import make_node

import onnxplain

CLASSES = 5


def networks() -> list[onnx.ModelProto]:
    return [convolutional(), attentive(), recurrent(), quantised()]


@functools.cache
def explain_graphs() -> tuple[onnx.ModelProto, ...]:
    """Those of the networks, and of some options."""
    convolutions, attention, *others = networks()
    rgb = {"mean": [0.5] * 3, "std": [0.25] * 3}
    exports = [
        *((network, {}) for network in others),
        (convolutions, {"labels": list("abcde"), **rgb}),
        (convolutions, {"multi_target": True, "live_temperature": True}),
        (convolutions, {"step": True, "live": ["relu"]}),
        (convolutions, {"method": "lrp-epsilon"}),
        (attention, {"method": "semantic"}),
    ]
    graphs = []
    with tempfile.TemporaryDirectory() as folder:
        source, graph = Path(folder, "source.onnx"), Path(folder, "explain.onnx")
        for network, options in exports:
            onnx.save(network, source)
            onnxplain.export(source, graph, **options)
            graphs.append(onnx.load(graph))
    return tuple(graphs)


def convolutional() -> onnx.ModelProto:
    """A convolution, a norm, a pool, a gate and a linear layer."""
    constants = {
        "w1": _random(4, 3, 3, 3),
        **{name: np.full(4, value, np.float32) for name, value in (("s", 1), ("v", 1))},
        **{name: np.zeros(4, np.float32) for name in ("b1", "b", "m")},
        "w2": _random(16, CLASSES),
        "b2": np.zeros(CLASSES, np.float32),
        "shape": np.array([0, -1]),
    }
    nodes = [
        make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        make_node("Relu", ["n"], ["r"]),
        make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Sigmoid", ["p"], ["g"]),
        make_node("Mul", ["p", "g"], ["q"]),
        make_node("Reshape", ["q", "shape"], ["f"]),
        make_node("Gemm", ["f", "w2", "b2"], ["y"]),
        make_node("Softmax", ["y"], ["z"], axis=1),
    ]
    return _model(nodes, constants)


def attentive() -> onnx.ModelProto:
    """Patches, a norm, attention of one head, GELU spelled out, and a linear layer of the mean."""
    constants = {
        "w1": _random(8, 3, 4, 4),
        "tokens": np.array([0, 8, 4]),
        **{name: _random(8, 8) for name in ("wq", "wk", "wv")},
        **{name: np.ones(8, np.float32) for name in ("s", "b")},
        **{name: np.array(x, np.float32) for name, x in (("h", 0.5), ("u", 1), ("r2", 2**0.5))},
        "axis": np.array([1]),
        "w2": _random(8, CLASSES),
    }
    nodes = [
        make_node("Conv", ["x", "w1"], ["c"], strides=[4, 4]),
        make_node("Reshape", ["c", "tokens"], ["t"]),
        make_node("Transpose", ["t"], ["e"], perm=[0, 2, 1]),
        make_node("LayerNormalization", ["e", "s", "b"], ["n"]),
        *(make_node("MatMul", ["n", f"w{v}"], [v]) for v in "qkv"),
        make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        make_node("MatMul", ["q", "kt"], ["a"]),
        make_node("Mul", ["a", "h"], ["a1"]),
        make_node("Softmax", ["a1"], ["a2"], axis=-1),
        make_node("MatMul", ["a2", "v"], ["o"]),
        make_node("Add", ["o", "e"], ["o1"]),
        make_node("Div", ["o1", "r2"], ["g"]),
        make_node("Erf", ["g"], ["g1"]),
        make_node("Add", ["g1", "u"], ["g2"]),
        make_node("Mul", ["o1", "g2"], ["g3"]),
        make_node("Mul", ["g3", "h"], ["g4"]),
        make_node("ReduceMean", ["g4", "axis"], ["f"], keepdims=0),
        make_node("MatMul", ["f", "w2"], ["z"]),
    ]
    return _model(nodes, constants)


def recurrent() -> onnx.ModelProto:
    """An LSTM over rows, a loop of three rounds, a branch, a slice and a linear layer."""
    constants = {
        "rows": np.array([0, 8, 24]),
        **{name: _random(1, 16, size) for name, size in (("w", 24), ("r", 4))},
        "b": np.zeros((1, 32), np.float32),
        "rounds": np.array(3),
        "going": np.array(True),
        "starts": np.array([-1]),
        "ends": np.array([2**62]),
        "axis": np.array([0]),
        "axes": np.array([0, 1]),
        "w2": _random(4, CLASSES),
    }
    state = helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None)
    flags = [
        helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
    ]
    still = helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, [])
    round_ = [make_node("Tanh", ["s"], ["s1"]), make_node("Identity", ["go"], ["still"])]
    state1 = helper.make_tensor_value_info("s1", onnx.TensorProto.FLOAT, None)
    body = helper.make_graph(round_, "body", [*flags, state], [still, state1])
    branches = {
        f"{name}_branch": helper.make_graph(
            [make_node(operator, ["l"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)],
        )
        for name, operator in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        make_node("Transpose", ["x"], ["x1"], perm=[0, 2, 1, 3]),
        make_node("Reshape", ["x1", "rows"], ["x2"]),
        make_node("Transpose", ["x2"], ["x3"], perm=[1, 0, 2]),
        make_node("LSTM", ["x3", "w", "r", "b"], ["o"], hidden_size=4),
        make_node("Slice", ["o", "starts", "ends", "axis"], ["o1"]),
        make_node("Loop", ["rounds", "going", "o1"], ["l"], body=body),
        make_node("If", ["going"], ["o2"], **branches),
        make_node("Squeeze", ["o2", "axes"], ["f"]),
        make_node("MatMul", ["f", "w2"], ["z"]),
    ]
    return _model(nodes, constants)


def quantised() -> onnx.ModelProto:
    """A convolution and a linear layer of 8-bit integers, enlarged and padded between."""
    constants = {
        "xs": np.array(0.02, np.float32),
        "xz": np.array(128, np.uint8),
        "w1": np.arange(108).reshape(4, 3, 3, 3).astype(np.int8),
        "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "w2": np.arange(4 * CLASSES).reshape(4, CLASSES).astype(np.int8),
        "w2s": np.array(0.01, np.float32),
    }
    nodes = [
        make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        make_node("DequantizeLinear", ["q", "xs", "xz"], ["d"]),
        make_node("DequantizeLinear", ["w1", "ws", "wz"], ["w"], axis=0),
        make_node("Conv", ["d", "w"], ["c"], group=1),
        make_node("Clip", ["c"], ["r"]),
        make_node("Resize", ["r", "", "scales"], ["u"], mode="linear"),
        make_node("Pad", ["u", "pads"], ["p"], mode="reflect"),
        make_node("AveragePool", ["p"], ["a"], kernel_shape=[2, 2], ceil_mode=1),
        make_node("Split", ["a"], ["a1", "a2"], axis=1, num_outputs=2),
        make_node("Concat", ["a2", "a1"], ["k"], axis=1),
        make_node("GlobalAveragePool", ["k"], ["g"]),
        make_node("Flatten", ["g"], ["f"]),
        make_node("DequantizeLinear", ["w2", "w2s"], ["v"]),
        make_node("Gemm", ["f", "v"], ["z"]),
    ]
    return _model(nodes, constants)


def _model(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
