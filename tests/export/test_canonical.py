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
from onnxplain.reference.answers import compare
from onnxplain.reference.forward import forward_proto

from .graphs import explain, head, node, source_outputs, write
from .graphs import images as images_of


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


class PaddedPool(torch.nn.Module):
    """A max-pool of padding 1, in the pool or before it by a number."""

    def __init__(self, lowest: float | None) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.lowest = lowest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, inside = self.conv(x), 1
        if self.lowest is not None:
            x, inside = torch.nn.functional.pad(x, (1, 1, 1, 1), value=self.lowest), 0
        return torch.nn.functional.max_pool2d(x, 3, 2, inside).pow(2).mean((2, 3))


@pytest.mark.parametrize("method", ["gradient", "excitation", "semantic"])
@pytest.mark.parametrize("lowest", [-np.inf, -3.4e38])
def test_padding_before_a_max_pool_is_the_pools_own(
    lowest: float, method: str, tmp_path: Path
) -> None:
    """TensorFlow's SAME, as timm spells it: an infinity would make excitation's softmax NaN."""
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32)
    found = []
    for value in (None, lowest):
        torch.manual_seed(0)
        module, path = PaddedPool(value).eval(), tmp_path / "pool.onnx"
        onnxplain.export(module, path, example=torch.zeros(1, 3, 8, 9), method=method)
        assert "Pad" not in [n.op_type for n in forward_nodes(path)]
        found.append(onnxplain.load(path, "cpu")(images, [0, 3]).pullback)
        if value in (None, -np.inf):
            parity = compare(onnxplain.load(path, "cpu"), module, images, np.array([0, 3]))
            assert all(p.relative_l2 < 1e-5 for p in parity.values())
    np.testing.assert_array_equal(found[0], found[1])


def hand_padded(path: Path, *outputs: str, **pool: object) -> tuple[Path, np.ndarray]:
    """Pad(-∞) → MaxPool as TensorFlow's exporter writes it, and its own logits for `images_of`."""
    nodes, weights = head("m" if "i" in outputs else "p", 3 * 5 * 5)
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "low": np.float32(-np.inf)}
    pooled = helper.make_node(
        "MaxPool", ["padded"], list(outputs), kernel_shape=[3, 3], strides=[2, 2], **pool
    )
    added = [node("Cast", ["i"], ["c"], to=TensorProto.FLOAT), node("Add", ["p", "c"], ["m"])]
    nodes = [
        node("Pad", ["x", "pads", "low"], ["padded"]),
        pooled,
        *(added if "i" in outputs else []),
        *nodes,
    ]
    write(path, nodes, {**pads, **weights}, shape=("N", 3, 9, 9))
    return path, source_outputs(path, images_of(2, 3, 9, 9))[0]


@pytest.mark.parametrize(
    ("outputs", "pool"),
    [(["p"], {}), (["p"], {"auto_pad": "VALID"}), (["p", "i"], {})],
    ids=["plain", "auto_pad VALID", "indices used"],
)
def test_padding_before_a_max_pool_leaves_the_logits(
    outputs: list[str], pool: dict[str, object], tmp_path: Path
) -> None:
    source, logits = hand_padded(tmp_path / "pool.onnx", *outputs, **pool)
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient")
    found = onnxplain.load(tmp_path / "e.onnx", "cpu")(images_of(2, 3, 9, 9), [0, 3])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5)


def forward_nodes(path: Path) -> list[onnx.NodeProto]:
    return list(forward_proto(path).graph.node)


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


@pytest.mark.parametrize(
    "relu6",
    [
        [node("Relu", ["c"], ["r"]), node("Min", ["r", "six"], ["h"])],
        [node("Max", ["c", "zero"], ["r"]), node("Min", ["six", "r"], ["h"])],
        [node("Min", ["c", "six"], ["r"]), node("Max", ["r", "zero"], ["h"])],
    ],
    ids=["Min(Relu)", "Min(Max)", "Max(Min)"],
)
def test_excitation_gates_relu6_however_it_is_spelled(
    relu6: list[onnx.NodeProto], tmp_path: Path
) -> None:
    conv = node("Conv", ["x", "K"], ["c"])
    tail, weights = head("h", 4 * 64)
    bounds = {"zero": np.float32(0), "six": np.float32(6)}
    weights |= bounds | {"K": 4 * images_of(4, 3, 1, 1)}
    plain = [node("Clip", ["c", "zero", "six"], ["h"])]
    x = images_of(2, 3, 8, 8)
    found, expected = (
        explain(write(tmp_path / f"{i}.onnx", [conv, *nodes, *tail], weights), x, "excitation")
        for i, nodes in enumerate((relu6, plain))
    )
    np.testing.assert_array_equal(found.pullback, expected.pullback)


LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))
LONG = tuple(
    f"light_{name}"
    for name in ("densenet121", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512")
)


@pytest.mark.parametrize(
    "method", ["excitation", pytest.param("gradient", marks=pytest.mark.sweep)]
)
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.sweep if path.stem in LONG else ())
        for path in LIGHT
    ],
)
def test_old_graphs_that_nobody_here_wrote(source: Path, method: str, tmp_path: Path) -> None:
    """Opset 9, weights by ConstantOfShape, a fixed batch, most of them with a final Softmax."""
    path, images = tmp_path / "explain.onnx", np.random.default_rng(0).random((2, 3, 224, 224))
    images = images.astype(np.float32)
    probabilities = source_outputs(source, images[:1])[0].reshape(1, 1000)
    onnxplain.export(source, path, method=method)
    explainer = onnxplain.load(path, threads=1)
    both = explainer(images, [3, 5])
    first = explainer(images[:1], [3])
    assert np.isfinite(both.pullback).all()
    assert both.pullback[0].any()
    np.testing.assert_array_equal(both.pullback[:1], first.pullback)
    found = first.logits if source.stem == "light_densenet121" else first.probabilities
    np.testing.assert_allclose(found, probabilities, rtol=1e-4, atol=1e-6)
    onnx.checker.check_model(path, full_check=True)


def fixed(path: Path, *nodes: onnx.NodeProto, batch: int = 1, **weights: np.ndarray) -> Path:
    return write(path, nodes, weights, (batch, 3, 8, 8))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_becomes_free_where_images_stay_apart(batch: int, tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "K"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Reshape", ["r", "tokens"], ["t"]),
        node("Transpose", ["t"], ["u"], perm=[0, 2, 1]),
        node("Transpose", ["u"], ["v"], perm=[0, 2, 1]),
        node("MatMul", ["u", "v"], ["a"]),
        node("Softmax", ["a"], ["s"], axis=-1),
        node("MatMul", ["s", "u"], ["m"]),
        node("Reshape", ["m", "flat"], ["f"]),
        node("MatMul", ["f", "W"], ["w"]),
        node("Add", ["w", "b"], ["y"]),
    ]
    weights = {
        "K": images_of(4, 3, 3, 3),
        "tokens": np.array([batch, 4, 64]),
        "flat": np.array([batch, -1]),
        "W": images_of(256, 5),
        "b": images_of(1, 5),
    }
    source = fixed(tmp_path / "fixed.onnx", *nodes, batch=batch, **weights)
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient")
    explainer = onnxplain.load(tmp_path / "e.onnx", threads=1)
    assert explainer.backend.signature.batch is None
    x = images_of(batch + 1, 3, 8, 8)
    together = explainer(x, 2)
    alone = [explainer(x[i : i + 1], 2) for i in range(len(x))]
    expected = source_outputs(source, x[:batch])[0]
    np.testing.assert_allclose(together.logits[:batch], expected, rtol=1e-4, atol=1e-5)
    for name in ("logits", "pullback"):
        single = np.concatenate([getattr(explanation, name) for explanation in alone])
        np.testing.assert_allclose(getattr(together, name), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mixing", "weights"),
    [
        (node("Transpose", ["x"], ["h"], perm=[1, 0, 2, 3]), {}),
        (node("Softmax", ["x"], ["h"], axis=0), {}),
        (node("CumSum", ["x", "first"], ["h"]), {"first": np.array(0)}),
        (node("Add", ["x", "each"], ["h"]), {"each": np.ones((2, 3, 8, 8), np.float32)}),
        (node("Slice", ["x", "from", "to", "of"], ["h"]),
         {"from": np.array([-9]), "to": np.array([9]), "of": np.array([0])}),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)  # fmt: skip
def test_a_batch_that_may_be_mixed_stays_fixed_and_says_why(
    mixing: onnx.NodeProto, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    mixing.name = "mixing"
    tail = [
        node("Reshape", ["h", "rows"], ["r"]),
        node("MatMul", ["r", "W"], ["y"]),
    ]
    weights = weights | {"rows": np.array([2, 192]), "W": images_of(192, 4)}
    source = fixed(tmp_path / "fixed.onnx", mixing, *tail, batch=2, **weights)
    metadata = onnxplain.export(source, tmp_path / "e.onnx", method="gradient")
    assert any("batches of 2 alone" in note and "'mixing'" in note for note in metadata.notes)
    explainer = onnxplain.load(tmp_path / "e.onnx", threads=1)
    assert explainer.backend.signature.batch == 2
    x = images_of(2, 3, 8, 8)
    expected = source_outputs(source, x)[0]
    np.testing.assert_allclose(explainer(x, 1).logits, expected, rtol=1e-4, atol=1e-5)
