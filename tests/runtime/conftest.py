"""Explain graphs small enough to be differentiated by hand.

The network is `logits = W · mean(x²) + b`, the mean over height and width, so that the input
gradient of logit t is `2 · x · W[t] / (H · W)`: it depends on the picture, and is 0 where the
picture is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.runtime import Explainer, load

HEIGHT, WIDTH, CLASSES = 6, 8, 5
LABELS = ("tabby cat", "Egyptian cat", "crane", "crane", "espresso")
WEIGHTS = np.array([[1, 0, 2], [0, 3, 1], [-1, 1, 1], [2, 2, -1], [0.5, 0.25, -2]])
BIAS = np.array([0.1, -0.2, 0.3, 0.0, 0.4])
TEMPERATURE = 0.5


class Tiny:
    """What the tests know of the network in closed form.

    `temperature` is what the live graph's file records; its pullback is the gradient divided by
    the temperature.
    """

    height, width, classes, labels, temperature = HEIGHT, WIDTH, CLASSES, LABELS, TEMPERATURE

    @staticmethod
    def logits(x: NDArray[np.floating]) -> NDArray[np.float64]:
        """For x [N,C,H,W]."""
        features = (x.astype(np.float64) ** 2).mean(axis=(2, 3))
        return features @ WEIGHTS[:, : x.shape[1]].T + BIAS

    @staticmethod
    def gradient(x: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.float64]:
        """For x [N,C,H,W] and non-negative targets [N]."""
        return 2 * x * WEIGHTS[targets, : x.shape[1], None, None] / (HEIGHT * WIDTH)

    @staticmethod
    def preprocessing(channels: int = 3, layout: str = "NCHW") -> Preprocessing:
        return Preprocessing(
            height=HEIGHT,
            width=WIDTH,
            resize=8,
            mean=(0.5, 0.4, 0.3)[:channels],
            std=(0.25, 0.2, 0.5)[:channels],
            layout=layout,
        )


def explain_graph(
    multi_target: bool = False,
    live_temperature: bool = False,
    batch: int | str = "N",
    layout: str = "NCHW",
    channels: int = 3,
    dtype: type[np.floating] = np.float32,
    labels: tuple[str, ...] = LABELS,
) -> onnx.ModelProto:
    constants = {
        "W": WEIGHTS[:, :channels].astype(dtype),
        "b": BIAS.astype(dtype),
        "classes": np.array([CLASSES]),
        "spatial": np.array([2, 3]),
        "last": np.array([-1]),
        "height_width": np.array([-2, -1]),
        "one": np.array([1]),
        "zero": np.array(0),
        "minus_one": np.array(-1),
        "scale": np.array(2 / (HEIGHT * WIDTH), dtype),
    }
    float_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    size = [HEIGHT, WIDTH, channels] if layout == "NHWC" else [channels, HEIGHT, WIDTH]
    targets = [batch, "K"] if multi_target else [batch]
    inputs = [
        helper.make_tensor_value_info("image", float_type, [batch, *size]),
        helper.make_tensor_value_info("target", TensorProto.INT64, targets),
    ]
    if live_temperature:
        inputs.append(helper.make_tensor_value_info("temperature", float_type, []))
    outputs = [
        helper.make_tensor_value_info("logits", float_type, [batch, CLASSES]),
        helper.make_tensor_value_info("pullback", float_type, [*targets, *size]),
    ]
    graph = helper.make_graph(
        explain_nodes(multi_target, live_temperature, layout == "NHWC"),
        "explain",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    metadata = Metadata(
        version="0",
        method="gradient",
        source="by hand",
        preprocessing=Tiny.preprocessing(channels, layout),
        parameters={"temperature": TEMPERATURE},
        labels=labels,
    )
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model, full_check=True)
    return model


def explain_nodes(
    multi_target: bool, live_temperature: bool, channels_last: bool
) -> list[onnx.NodeProto]:
    def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), output.split(), **attributes)

    return [
        node("Transpose", "image", "x", perm=[0, 3, 1, 2])
        if channels_last
        else node("Identity", "image", "x"),
        node("Mul", "x x", "square"),
        node("ReduceMean", "square spatial", "features", keepdims=0),
        node("Gemm", "features W b", "logits", transB=1),
        node("TopK", "logits classes", "sorted ranking"),
        node("Identity", "target", "targets")
        if multi_target
        else node("Unsqueeze", "target last", "targets"),
        node("Sub", "minus_one targets", "place"),
        node("Max", "place zero", "rank"),
        node("GatherElements", "ranking rank", "ranked", axis=1),
        node("Less", "targets zero", "from_top"),
        node("Where", "from_top ranked targets", "resolved"),
        node("Gather", "W resolved", "rows"),
        node("Unsqueeze", "rows height_width", "weights"),
        node("Mul", "scale x", "scaled"),
        node("Unsqueeze", "scaled one", "scaled_once"),
        node("Mul", "scaled_once weights", "gradients"),
        node("Div", "gradients temperature", "pullbacks")
        if live_temperature
        else node("Identity", "gradients", "pullbacks"),
        node("Transpose", "pullbacks", "in_layout", perm=[0, 1, 3, 4, 2])
        if channels_last
        else node("Identity", "pullbacks", "in_layout"),
        node("Identity", "in_layout", "pullback")
        if multi_target
        else node("Squeeze", "in_layout one", "pullback"),
    ]


GraphFile = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the backends keep what they compile, in tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def tiny() -> type[Tiny]:
    return Tiny


@pytest.fixture
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Writes `explain_graph(**variant)` to a file."""

    def write(**variant: object) -> Path:
        path = tmp_path_factory.mktemp("graph") / "tiny.explain.onnx"
        onnx.save(explain_graph(**variant), path)
        return path

    return write


@pytest.fixture
def explainer(graph_file: GraphFile) -> Explainer:
    return load(graph_file())


@pytest.fixture
def x() -> NDArray[np.float32]:
    """Three normalised images whose predicted classes differ."""
    images = np.random.default_rng(0).normal(size=(3, 3, HEIGHT, WIDTH))
    images *= np.array([[3, 1, 1], [1, 3, 1], [1, 1, 3]])[:, :, None, None]
    return images.astype(np.float32)
