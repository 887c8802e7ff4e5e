"""The canonical forward: composite spellings recognised, shapes right, the function unchanged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import onnxplain
from onnxplain.bench.parity import compare


class CeilPools(torch.nn.Module):
    def __init__(self, **options: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.pool = torch.nn.MaxPool2d(ceil_mode=True, **options)
        self.average = torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.average(self.pool(self.conv(x).relu())).pow(2).mean((2, 3))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (9, {"kernel_size": 2, "stride": 2, "padding": 1}),  # a last window would start in padding
        (8, {"kernel_size": 2, "stride": 2, "padding": 1}),
        (11, {"kernel_size": 3, "stride": 2}),
        (13, {"kernel_size": 3, "stride": 3, "padding": 1, "dilation": 2}),
        (10, {"kernel_size": 2, "stride": 3, "padding": 1}),
    ],
)
def test_ceil_mode_has_the_windows_of_pytorch(
    size: int, options: dict[str, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, path = CeilPools(**options).eval(), tmp_path / "pools.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, 3, size, size))
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    parity = compare(onnxplain.load(path), module, images, np.array([0, 3]))
    assert all(p.relative_l2 < 1e-5 for p in parity.values())


def test_ceil_mode_of_a_file_without_shapes(tmp_path: Path) -> None:
    """ONNX infers one window too many here at opset 20, and the layers after it disagree."""
    pool = helper.make_node(
        "MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1
    )
    nodes = [
        pool,
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "W"], ["y"]),
    ]
    weight = np.random.default_rng(0).standard_normal((3 * 5 * 5, 4)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "pools",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "W")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "p.onnx")
    onnxplain.export(tmp_path / "p.onnx", tmp_path / "e.onnx", method="gradient")
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 9)).astype(np.float32)
    explanation = onnxplain.load(tmp_path / "e.onnx")(x, [0, 1])
    leaf = torch.tensor(x, requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(leaf, 2, 2, 1, ceil_mode=True).relu()
    logits = pooled.flatten(1) @ torch.tensor(weight)
    (logits[0, 0] + logits[1, 1]).backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(explanation.pullback, leaf.grad.numpy(), atol=1e-5)


class Spellings(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 3) for _ in range(3))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = (
            lambda y, conv=conv, norm=norm: norm(conv(y))
            for conv, norm in zip(self.convs, self.norms, strict=True)
        )
        x = a(x).clamp(min=0)
        x = torch.nn.functional.hardtanh(b(x), 0, 6)
        return c(x).clamp(0, 1).mean((2, 3))


def test_relu_however_it_is_spelled_and_batch_norm_folded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Spellings(), tmp_path / "s.onnx"
    module(torch.randn(16, 3, 12, 12))  # running statistics other than 0 and 1
    module.eval()
    onnxplain.export(module, path, example=torch.zeros(1, 3, 12, 12))
    count = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert count["Relu"] == 1
    assert count["Max"] == count["BatchNormalization"] == 0
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    parity = compare(onnxplain.load(path), module, images, np.array([0, 2]))
    assert all(p.relative_l2 < 1e-5 for p in parity.values())


@pytest.mark.parametrize("name", ["resnet50", "vgg19", "bvlc_alexnet", "inception_v1"])
def test_old_graphs_that_nobody_here_wrote(name: str, tmp_path: Path) -> None:
    """Opset 9, a final Softmax, weights by ConstantOfShape, a fixed batch."""
    light = Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"
    path = tmp_path / "explain.onnx"
    onnxplain.export(light, path)
    onnx.checker.check_model(path, full_check=True)
    explainer = onnxplain.load(path, threads=1)
    shape = explainer.backend.signature.batch, 3, 224, 224
    explanation = explainer(np.random.default_rng(0).random(shape, np.float32))
    assert explanation.pullback.shape == shape
    assert np.isfinite(explanation.pullback).all()
    assert explanation.logits.shape == (1, 1000)
