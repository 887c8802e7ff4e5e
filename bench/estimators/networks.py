"""The networks on which explanations are compared, and what of each the packages need to know."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet, VisionTransformer
from torchvision.models.resnet import Bottleneck
from zennit.canonizers import Canonizer
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from onnxplain.bench.zoo.entry import awaken
from onnxplain.export.sources.source import torch_network

RELU, ATTENTION, CANONIZER = "ReLU modules", "attention modules", "a canonizer of zennit's"


@dataclass(frozen=True)
class Network:
    """A network, and where it is looked at.

    Attributes:
        make: gives the module.
        size: the height and width of its image, as small as it allows.
        layer: whose map is compared.
        probed: that of the maps that ask once for each channel, of which it has few.
        grid: of what a layer puts out, [N, C, h, w]; None where it is that.
        canonizer: with which zennit takes it.
        has: what a package needs to find in it.
    """

    make: Callable[[], nn.Module]
    size: int
    layer: str
    probed: str
    grid: Callable[[Tensor], Tensor] | None = None
    canonizer: type[Canonizer] | None = None
    has: frozenset[str] = frozenset()

    def module(self) -> nn.Module:
        """In float32: trained where weights come with a package, else random and awake."""
        torch.manual_seed(0)
        made = self.make().eval()
        for layer in made.modules():
            if isinstance(layer, nn.ReLU | nn.ReLU6):
                layer.inplace = False  # hooks keep what it reads
        return made


def _torchvision(name: str, **options: Any) -> nn.Module:
    return awake(torchvision.models.get_model(name, **options))


def merged(module: nn.Module) -> nn.Module:
    """With each norm in the convolution before it, rounded to float32, as our files have them.

    In float64 throughout, a hard gate could be open in one of the two and shut in the other.
    """
    found, before = copy.deepcopy(module), ""
    for name, layer in list(found.named_modules()):
        if isinstance(layer, nn.Conv2d):
            before = name
        siblings = name.rpartition(".")[0] == before.rpartition(".")[0]
        if isinstance(layer, nn.BatchNorm2d) and before and siblings:
            convolution = found.get_submodule(before)
            assert isinstance(convolution, nn.Conv2d)
            found.set_submodule(before, fuse_conv_bn_eval(convolution, layer))
            found.set_submodule(name, nn.Identity())
    return found


def awake(module: nn.Module) -> nn.Module:
    awaken(module)
    return module


def _tokens(x: Tensor) -> Tensor:
    """Without the class token."""
    side = round((x.shape[1] - 1) ** 0.5)
    return x[:, 1:].mT.reshape(len(x), -1, side, side)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


_LAST_NORM = "encoder.layers.encoder_layer_{}.ln_1"

NETWORKS: Mapping[str, Network] = {
    "resnet50": Network(
        partial(_torchvision, "resnet50"),
        64,
        "layer3",
        "maxpool",
        canonizer=ResNetCanonizer,
        has=frozenset({RELU, CANONIZER}),
    ),
    "vgg16_bn": Network(
        partial(_torchvision, "vgg16_bn"),
        64,
        "features.42",
        "features.6",
        canonizer=VGGCanonizer,
        has=frozenset({RELU, CANONIZER}),
    ),
    "densenet121": Network(
        partial(_torchvision, "densenet121"), 64, "features.denseblock3", "features.pool0"
    ),
    "vit_b_16": Network(
        partial(_torchvision, "vit_b_16", image_size=64),
        64,
        _LAST_NORM.format(11),
        _LAST_NORM.format(11),
        _tokens,
        has=frozenset({ATTENTION}),
    ),
    "swin_t": Network(
        partial(_torchvision, "swin_t"), 64, "features.5", "features.1", _channels_last
    ),
    "efficientnet-lite0": Network(
        lambda: torch_network("efficientnet-lite0", "DEFAULT").module, 96, "_blocks.10", "_blocks.0"
    ),
}

QUICK: Mapping[str, Network] = {
    "a small ResNet": Network(
        lambda: awake(ResNet(Bottleneck, [1, 1, 1, 1], 10, width_per_group=4)),
        32,
        "layer2",
        "maxpool",
        canonizer=ResNetCanonizer,
        has=frozenset({RELU, CANONIZER}),
    ),
    "a small ViT": Network(
        lambda: awake(VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=10)),
        32,
        _LAST_NORM.format(1),
        _LAST_NORM.format(1),
        _tokens,
        has=frozenset({ATTENTION}),
    ),
}
"""Small ones, for a look at whether all of it runs."""
