"""Which layers are matched where neither a recipe nor the user says."""

from __future__ import annotations

from itertools import pairwise

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer

from onnxplain.errors import SourceError
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.layers import home_of
from onnxplain.export.sources.source import read
from onnxplain.vital.graphs.matching import extent
from onnxplain.vital.graphs.stages import pick_layers

SIZE = 64


def picked(module: nn.Module, size: int = SIZE) -> dict[str, tuple[int, int]]:
    """The picked layers: name → channels and positions."""
    source = read(module.eval(), example=torch.zeros(1, 3, size, size))
    graph: ir.Graph = canonicalise(source.model).model.graph
    layers = pick_layers(graph)
    return {home_of(layer): extent(layer, graph.inputs[0]) for layer in layers}


def conv(channels: tuple[int, int], stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(*channels, 3, stride, 1), nn.ReLU())


class TokenPooled(nn.Module):
    """A CNN whose last maps are averaged as [N, C, P]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 12, 16)
        self.stages = nn.ModuleList(map(conv, pairwise(widths)))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        flat = x.flatten(2)
        weights = flat.mean(1, keepdim=True).softmax(-1)
        return self.fc((flat * weights).sum(-1))


class Patches(nn.Module):
    """timm's way to make tokens, with an activation on the way, and no class token."""

    def __init__(self, width: int = 24, depth: int = 5) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(width, 2, 48, batch_first=True) for _ in range(depth))
        )
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.proj(x).flatten(2).relu().transpose(1, 2)
        return self.fc(self.blocks(tokens).mean(1))


def test_of_a_resnet_the_stem_and_four_stages_are_picked() -> None:
    layers = picked(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5))
    assert list(layers.values()) == [(64, 1024), (64, 256), (128, 64), (256, 16), (512, 4)]
    assert [name.split(".")[0] for name in layers][1:] == [f"layer{i}" for i in (1, 2, 3, 4)]


def test_of_a_plain_cnn_the_last_layer_of_each_resolution_is_picked() -> None:
    """Convolutions without padding lose a rim: that is no new resolution."""
    rimmed = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 9, 3))
    module = nn.Sequential(
        conv((3, 8)), rimmed, nn.MaxPool2d(2), conv((9, 12), 1), conv((12, 16)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    assert list(picked(module).values()) == [(9, 28 * 28), (12, 14 * 14), (16, 7 * 7)]


def test_maps_flattened_before_a_mean_are_no_stage() -> None:
    assert list(picked(TokenPooled()).values()) == [(8, 1024), (12, 256), (16, 64)]


def test_of_a_transformer_with_a_class_token_five_layers_are_picked_evenly() -> None:
    """There are as many patches as channels."""
    layers = picked(VisionTransformer(SIZE, 8, 5, 2, 64, 48, num_classes=5))
    assert list(layers.values()) == [(64, 65)] * 5
    blocks = [name.split("encoder_layer_")[1].split(".")[0] for name in layers]
    assert blocks == [str(i) for i in range(5)]


def test_of_tokens_without_a_class_token_five_layers_are_picked_evenly() -> None:
    layers = picked(Patches())
    assert list(layers.values()) == [(24, 64)] * 5
    assert [name.split(".")[1] for name in layers] == [str(i) for i in range(5)]


def test_a_network_of_one_layer_is_refused_and_the_message_says_what_to_give() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    with pytest.raises(SourceError, match="give its layers, from the image on, with layers="):
        picked(module)
