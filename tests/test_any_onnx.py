"""Whatever `.onnx` file people have: from the TorchScript exporter, tf2onnx, with several ends."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
import torchvision
from PIL import Image

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.reference.answers import compare
from onnxplain.runtime.ascent import accentuate

from .export.graphs import cosine, explain, images, node, source_outputs, write


class TestTorchScriptExporter:
    """`torch.onnx.export(dynamo=False)`, which wrote most of the files that there are."""

    NETWORKS: ClassVar[dict[str, Callable[[], torch.nn.Module]]] = {
        "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=10),
        "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
        "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10),
        "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
        "vit": lambda: torchvision.models.VisionTransformer(
            image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64,
            num_classes=10,
        ),
    }  # fmt: skip

    def write(self, path: Path, module: torch.nn.Module, opset: int, batch: int | None) -> None:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(batch or 2, 3, 64, 64),),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=["input"],
                dynamic_axes=None if batch else {"input": {0: "batch"}},
            )

    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize(
        ("opset", "batch"),
        [(11, 1), pytest.param(13, None, marks=pytest.mark.sweep), (17, None)],
    )
    def test_agrees_with_the_reference(
        self, name: str, opset: int, batch: int | None, tmp_path: Path
    ) -> None:
        if name == "vit":
            opset = max(opset, 14)  # the exporter writes its attention from there on
        torch.manual_seed(0)
        module = self.NETWORKS[name]().eval()
        if name == "vit":  # whose head begins at zero
            torch.nn.init.normal_(module.heads.head.weight)
        stays_fixed = name == "vit" and batch == 1  # its attention puts the tokens first
        source = tmp_path / "source.onnx"
        self.write(source, module, opset, batch)
        for method in ("gradient", "excitation"):
            path = tmp_path / f"{method}.onnx"
            onnxplain.export(source, path, method=method)
            explainer = onnxplain.load(path, threads=1)
            assert explainer.backend.signature.batch == (1 if stays_fixed else None)
            parity = compare(explainer, module, images(2, 3, 64, 64), np.array([-1, 3]))
            assert parity["logits"].relative_l2 <= 1e-4
            assert parity["pullback"].relative_l2 <= 1e-3
            assert parity["pullback"].cosine >= 0.99999


def nhwc_network(path: Path, opset: int, batch: int | str = "N") -> Path:
    """A MobileNet block as tf2onnx writes it: transposes pushed around, pads apart, ReLU6."""
    weights: dict[str, Any] = {
        "stem": images(8, 3, 3, 3, seed=1) / 3,
        "deep": images(8, 1, 3, 3, seed=2) / 3,
        "point": images(16, 8, 1, 1, seed=3) / 3,
        "dense": images(16, 5, seed=4),
        "bias": images(5, seed=5),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "zero": np.float32(0),
        "six": np.float32(6),
        "half": np.full((1, 1, 1, 1), 0.5, np.float32),
        "flat": np.array([-1, 16]),
    }
    for i, kind in enumerate(("scale", "shift", "mean", "var")):
        weights[kind] = np.abs(images(8, seed=6 + i)) + 0.2
    statistics = ["scale", "shift", "mean", "var"]
    nodes = [
        node("Sub", ["x", "half"], ["centred"]),
        node("Transpose", ["centred"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Pad", ["nchw", "pads"], ["padded"]),
        node("Conv", ["padded", "stem"], ["s"], strides=[2, 2], kernel_shape=[3, 3]),
        node("BatchNormalization", ["s", *statistics], ["n"], epsilon=1e-3),
        node("Clip", ["n", "zero", "six"], ["r"]),
        node("Transpose", ["r"], ["back"], perm=[0, 2, 3, 1]),
        node("Transpose", ["back"], ["again"], perm=[0, 3, 1, 2]),
        node("Conv", ["again", "deep"], ["d"], group=8, auto_pad="SAME_UPPER"),
        node("Clip", ["d", "zero", "six"], ["e"]),
        node("Add", ["e", "r"], ["residual"]),
        node("Conv", ["residual", "point"], ["p"]),
        node("Relu", ["p"], ["q"]),
        node("Transpose", ["q"], ["last"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["last"], ["pooled"], axes=[1, 2], keepdims=1),
        node("Reshape", ["pooled", "flat"], ["features"]),
        node("MatMul", ["features", "dense"], ["product"]),
        node("Add", ["product", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    shape = (batch, 32, 40, 3)
    return write(path, nodes, weights, shape, ["probabilities"], opset)


def nchw_twin(weights: dict[str, np.ndarray]) -> torch.nn.Module:
    """The same network in PyTorch, from images [N, 3, H, W]."""
    functional = torch.nn.functional
    tensor = {
        name: torch.nn.Parameter(torch.tensor(array))
        for name, array in weights.items()
        if array.dtype == np.float32
    }

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("stem", "deep", "point", "dense", "bias", "scale", "shift"):
                self.register_parameter(name, tensor[name])
            self.register_buffer("mean", tensor["mean"].detach())
            self.register_buffer("var", tensor["var"].detach())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.pad(x - 0.5, (0, 1, 0, 1))
            x = functional.conv2d(x, self.stem, stride=2)
            x = functional.batch_norm(x, self.mean, self.var, self.scale, self.shift, eps=1e-3)
            x = functional.relu6(x)
            x = functional.relu6(functional.conv2d(x, self.deep, padding=1, groups=8)) + x
            x = functional.conv2d(x, self.point).relu()
            return x.mean((2, 3)) @ self.dense + self.bias

    return Twin().eval()


class TestNHWC:
    """Input [N, H, W, C]."""

    @pytest.mark.parametrize("opset", [13, 15])
    @pytest.mark.parametrize("method", ["gradient", "excitation"])
    def test_agrees_with_the_same_network_in_pytorch(
        self, method: str, opset: int, tmp_path: Path
    ) -> None:
        source, path = nhwc_network(tmp_path / "tf.onnx", opset), tmp_path / "e.onnx"
        metadata = onnxplain.export(source, path, method=method)
        pre = metadata.preprocessing
        assert (pre.layout, pre.height, pre.width) == ("NHWC", 32, 40)
        assert metadata.activation == "softmax"
        weights = {
            w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(source).graph.initializer
        }
        parity = compare(
            onnxplain.load(path, threads=1),
            nchw_twin(weights),
            images(3, 3, 32, 40),
            np.array([-1, 2, 0]),
        )
        assert all(p.relative_l2 <= 1e-4 and p.cosine >= 0.99999 for p in parity.values())

    def test_the_probabilities_are_the_sources_own(self, tmp_path: Path) -> None:
        source = nhwc_network(tmp_path / "tf.onnx", 13)
        x = images(2, 32, 40, 3)
        explanation = explain(source, x)
        np.testing.assert_allclose(
            explanation.probabilities, source_outputs(source, x)[0], rtol=1e-4
        )

    def test_a_fixed_batch_of_one_becomes_free(self, tmp_path: Path) -> None:
        source = nhwc_network(tmp_path / "tf.onnx", 13, batch=1)
        explanation = explain(source, images(2, 32, 40, 3))
        assert len(explanation) == 2

    def test_pictures_of_a_photograph(
        self, photographs: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        """Every way to look at it has the photograph's axes, whatever the network's layout."""
        source, path = nhwc_network(tmp_path / "tf.onnx", 13), tmp_path / "e.onnx"
        onnxplain.export(source, path, step=True)
        explainer = onnxplain.load(path, threads=1)
        explanation = explainer([photographs["chelsea"], photographs["coffee"]])
        assert explanation.pullback.shape == (2, 3, 32, 40)
        assert explanation.photographs.shape == (2, 32, 40, 3)
        assert explanation.heatmap().shape == (2, 32, 40)
        for style in ("pullback", "heatmap", "overlay"):
            seen = {"size": "network", "captions": False}
            explanation.save(tmp_path / f"{style}.png", style=style, **seen)
            assert Image.open(tmp_path / f"{style}.png").size == (6 * 40, 2 * 6 * 32)
        explanation.save(tmp_path / "grid.png", style="grid")

        better = accentuate(explainer, photographs["chelsea"], targets=2, steps=3, alpha=2.0)
        assert better.difference.shape == (1, 3, 32, 40)
        assert better.gain[0] > 0

    def test_an_ascent_is_that_of_the_nchw_network(
        self, photographs: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        source = nhwc_network(tmp_path / "tf.onnx", 13)
        model = onnx.load(source)
        model.graph.input[0].type.tensor_type.shape.CopyFrom(
            onnx.helper.make_tensor_type_proto(1, ["N", 3, 32, 40]).tensor_type.shape
        )
        model.graph.input[0].name = "nchw_image"
        turn = node("Transpose", ["nchw_image"], ["x"], perm=[0, 2, 3, 1])
        model.graph.node.insert(0, turn)
        turned = tmp_path / "turned.onnx"
        onnx.save(model, turned)
        ends = []
        for file in (source, turned):
            for step in (False, True):
                onnxplain.export(file, tmp_path / "e.onnx", step=step)
                explainer = onnxplain.load(tmp_path / "e.onnx", threads=1)
                ends.append(accentuate(explainer, photographs["rocket"], 1, alpha=5.0).difference)
        assert ends[0].any()
        for other in ends[1:]:
            np.testing.assert_allclose(other, ends[0], atol=1e-3)


def two_heads(path: Path, *tail: onnx.NodeProto, outputs: list[str]) -> Path:
    """Features of 3 numbers, and `y` [N, 4] from them."""
    nodes = [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("MatMul", ["features", "W"], ["y"]),
        *tail,
    ]
    return write(path, nodes, {"W": images(3, 4), "V": images(3, 2)}, outputs=outputs)


SOFTMAX = node("Softmax", ["y"], ["p"], axis=-1)
LABEL = node("ArgMax", ["y"], ["label"], axis=1, keepdims=0)


class TestEnds:
    """Which of several outputs are the logits, and what was after them."""

    X = images(2, 3, 8, 8)

    def retyped(self, path: Path, **types: int) -> Path:
        model = onnx.load(path)
        for output in model.graph.output:
            if output.name in types:
                output.type.tensor_type.elem_type = types[output.name]
        onnx.save(model, path)
        return path

    def expected(self) -> np.ndarray:
        return self.X.mean((2, 3)) @ images(3, 4)

    def test_a_label_beside_probabilities_does_not_count(self, tmp_path: Path) -> None:
        path = two_heads(tmp_path / "l.onnx", SOFTMAX, LABEL, outputs=["label", "p"])
        explanation = explain(self.retyped(path, label=onnx.TensorProto.INT64), self.X)
        np.testing.assert_allclose(explanation.logits, self.expected(), rtol=1e-4, atol=1e-6)
        assert explanation.activation == "softmax"

    def test_logits_beside_their_own_probabilities_are_one_head(self, tmp_path: Path) -> None:
        sigmoid = node("Sigmoid", ["y"], ["p"])
        for outputs in (["y", "p"], ["p", "y"]):
            path = two_heads(tmp_path / "l.onnx", sigmoid, outputs=outputs)
            explanation = explain(path, self.X)
            np.testing.assert_allclose(explanation.logits, self.expected(), rtol=1e-4, atol=1e-6)
            assert explanation.activation == "sigmoid"

    def test_a_feature_map_beside_the_logits_does_not_count(self, tmp_path: Path) -> None:
        path = two_heads(tmp_path / "l.onnx", node("Relu", ["x"], ["map"]), outputs=["map", "y"])
        np.testing.assert_allclose(explain(path, self.X).logits, self.expected(), rtol=1e-4)

    def test_two_heads_are_told_apart_by_name(self, tmp_path: Path) -> None:
        other = [
            node("MatMul", ["features", "V"], ["z"]),
            node("Softmax", ["z"], ["q"], axis=-1),
            SOFTMAX,
        ]
        path = two_heads(tmp_path / "h.onnx", *other, outputs=["p", "q"])
        with pytest.raises(SourceError, match="output=: p, q"):
            explain(path, self.X)
        for name, weight in (("p", images(3, 4)), ("q", images(3, 2)), ("z", images(3, 2))):
            explanation = explain(path, self.X, output=name)
            expected = self.X.mean((2, 3)) @ weight
            np.testing.assert_allclose(explanation.logits, expected, rtol=1e-4, atol=1e-6)

    def test_coordinates_beside_the_head_that_a_softmax_ends_do_not_count(
        self, tmp_path: Path
    ) -> None:
        """As a detector of one object puts them out."""
        box = node("MatMul", ["features", "V"], ["box"])
        for outputs in (["box", "p"], ["p", "box"]):
            explanation = explain(
                two_heads(tmp_path / "b.onnx", box, SOFTMAX, outputs=outputs), self.X
            )
            np.testing.assert_allclose(explanation.logits, self.expected(), rtol=1e-4, atol=1e-6)

    def test_an_input_that_the_named_head_does_not_need_is_dropped(self, tmp_path: Path) -> None:
        path = two_heads(
            tmp_path / "i.onnx", node("Mul", ["y", "weights"], ["z"]), outputs=["y", "z"]
        )
        model = onnx.load(path)
        model.graph.input.append(onnx.helper.make_tensor_value_info("weights", 1, ["N", 4]))
        onnx.save(model, path)
        assert cosine(explain(path, self.X, output="y").logits, self.expected()) > 0.9999
        with pytest.raises(SourceError, match="depend on weights"):
            explain(path, self.X, output="z")
