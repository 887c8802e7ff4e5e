"""Backward nodes keep the name of the layer that they come from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnxplain

from .graphs import head, images, node, write


def names_of(path: Path) -> list[str]:
    return [n.name for n in onnx.load(path, load_external_data=False).graph.node]


def backward(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("pullback/")]


def layer_of(name: str) -> str:
    return name.removeprefix("pullback/").rpartition("/")[0]


@pytest.mark.parametrize("multi_target", [False, True])
@pytest.mark.parametrize("kernels", [False, True])
def test_a_torchvision_networks_layers(tmp_path: Path, multi_target: bool, kernels: bool) -> None:
    """By the paths of the modules, after lowering, for K targets, with kernels and without."""
    path = tmp_path / "explain.onnx"
    onnxplain.export(
        "resnet18", path, weights="none", size=64, multi_target=multi_target, kernels=kernels
    )
    names = names_of(path)
    assert len(set(names)) == len(names)
    layers = {layer_of(name) for name in backward(names)}
    blocks = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    for layer in ("relu/Relu", "fc/Gemm", "maxpool/MaxPool", *(f"{b}.relu/Relu" for b in blocks)):
        assert layer in layers
    for block in blocks:  # each has two convolutions, into which their normalisations are folded
        assert {f"{block}.bn1/Conv", f"{block}.bn2/Conv"} <= layers
    # All but the two ends of the sweep come from a layer.
    assert sum(not layer_of(name) for name in backward(names)) <= 4


@pytest.mark.parametrize("method", ["excitation", "lrp-zplus"])
@pytest.mark.parametrize("multi_target", [False, True])
def test_the_names_of_a_files_nodes(tmp_path: Path, method: str, multi_target: bool) -> None:
    """`/layer1/conv1/Conv` → `pullback/layer1/conv1/Conv/…`, whatever is made of it."""
    last, more = head("pooled", 4 * 2 * 2)
    nodes = [
        node("Conv", ["x", "w"], ["z"], name="/stem/conv/Conv", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["z"], ["r"], name="/stem/relu/Relu"),
        node("Add", ["r", "z"], ["s"], name="/layer1/Add"),
        node("MaxPool", ["s"], ["pooled"], name="/pool", kernel_shape=[2, 2], strides=[2, 2]),
        *last,
    ]
    source = write(tmp_path / "source.onnx", nodes, {"w": images(4, 3, 3, 3)} | more)
    path = tmp_path / "explain.onnx"
    onnxplain.export(source, path, method=method, multi_target=multi_target)
    names = names_of(path)
    assert {n.name for n in nodes[:4]} <= set(names)
    assert len(set(names)) == len(names)
    layers = {layer_of(name) for name in backward(names)}
    between = "stem/relu/Relu" if method == "excitation" else "layer1/Add"  # what each changes
    assert {"stem/conv/Conv", between, "pool"} <= layers


def test_what_arrives_at_a_layer_from_several_is_summed_in_its_name(tmp_path: Path) -> None:
    last, more = head("s", 3 * 64)
    nodes = [
        node("Sigmoid", ["x"], ["r"], name="gate"),
        node("Mul", ["r", "r"], ["s"], name="square"),
        *last,
    ]
    source = write(tmp_path / "source.onnx", nodes, more)
    onnxplain.export(source, tmp_path / "explain.onnx", method="gradient")
    assert "pullback/gate/Add" in names_of(tmp_path / "explain.onnx")


def test_steps_of_an_unrolled_ascent_are_numbered(tmp_path: Path) -> None:
    last, more = head("r", 3 * 64)
    source = write(tmp_path / "source.onnx", [node("Relu", ["x"], ["r"], name="gate"), *last], more)
    onnxplain.export(source, tmp_path / "explain.onnx", unroll=3)
    names = names_of(tmp_path / "explain.onnx")
    assert len(set(names)) == len(names)
    assert sum(layer_of(name) == "gate" for name in backward(names)) >= 3


def test_names_cost_little(tmp_path: Path) -> None:
    """A small network of many layers, where names weigh most; the bound is that on whole files."""
    path = tmp_path / "explain.onnx"
    onnxplain.export("squeezenet1_1", path, weights="none", size=64)
    model = onnx.load(path)
    written = model.ByteSize()
    for n in model.graph.node:
        n.ClearField("name")
    assert written - model.ByteSize() < 0.005 * written
