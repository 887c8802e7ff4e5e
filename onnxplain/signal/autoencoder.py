"""The SegNet autoencoder (Badrinarayanan et al., arXiv 1511.00561) as Palacio et al. train it.

The encoder is VGG-16's convolutions with BatchNorm. The decoder mirrors it, and puts each value
back where the encoder's max-pool found it. A 1 × 1 convolution makes the picture.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError
from onnxplain.signal import unpooling

WIDTHS: dict[str, tuple[tuple[int, ...], ...]] = {
    "segnet": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "segnet-small": ((32, 32), (64, 64), (128, 128)),
    "segnet-tiny": ((16, 16), (32, 32)),
}
"""Autoencoder → the channels of the convolutions between its max-pools: the paper's, and two for
pictures of about 64 and 32 pixels."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Design:
    """What an autoencoder is built from; saved with its weights.

    Attributes:
        name: a key of `WIDTHS`.
        size: width and height of the pictures, in pixels.
        mean, std: of the pixel values in [0, 1], one entry per channel (RGB, or grey).
    """

    name: str
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(cls, name: str, size: int, channels: int) -> Design:
        """A design with ImageNet's mean and std for colour, and 0.5 for grey.

        Raises:
            InputError: no such autoencoder, or a size that its max-pools do not divide.
        """
        if name not in WIDTHS:
            raise InputError(f"no autoencoder {name!r}; known: {', '.join(WIDTHS)}")
        factor = 2 ** len(WIDTHS[name])
        if size < factor or size % factor:
            raise InputError(
                f"{name} halves its picture {len(WIDTHS[name])} times: the size must be a "
                f"multiple of {factor}, not {size}"
            )
        return cls(name, size) if channels == 3 else cls(name, size, (0.5,), (0.5,))

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Design:
        """Raises TypeError, KeyError or ValueError for anything that `to_dict` did not write."""
        size = int(entries["size"])
        return cls(entries["name"], size, tuple(entries["mean"]), tuple(entries["std"]))


class Code(NamedTuple):
    """The encoder's output: features, and for each max-pool where its values came from."""

    features: Tensor
    places: list[Any]


class Encoder(nn.Module):
    """[N, C, H, W] → features [N, width, H / 2^pools, W / 2^pools], and the max-pools' places."""

    def __init__(self, widths: tuple[tuple[int, ...], ...], channels: int) -> None:
        super().__init__()
        self.blocks = [
            [f"{i}{j}" for j in range(1, len(block) + 1)] for i, block in enumerate(widths, 1)
        ]
        last = channels
        for names, block in zip(self.blocks, widths, strict=True):
            for name, width in zip(names, block, strict=True):
                self.add_module(f"conv{name}", nn.Conv2d(last, width, 3, padding=1))
                self.add_module(f"bn{name}", nn.BatchNorm2d(width))
                last = width

    def forward(self, x: Tensor, pool: Any) -> Code:
        places = []
        for names in self.blocks:
            for name in names:
                x = _convolved(self, name, x)
            x, place = pool(x)
            places.append(place)
        return Code(x, places)


class Decoder(nn.Module):
    """The way back from the encoder: a `Code` → [N, C, H, W]."""

    def __init__(self, widths: tuple[tuple[int, ...], ...], channels: int) -> None:
        super().__init__()
        self.blocks: deque[list[str]] = deque()
        entering = [widths[0][0], *(block[-1] for block in widths[:-1])]
        for i, (block, outer) in enumerate(zip(widths, entering, strict=True), 1):
            self.blocks.appendleft([f"{i}{j}d" for j in range(len(block), 0, -1)])
            for j, width in enumerate(block, 1):
                out = outer if j == 1 else block[j - 2]
                self.add_module(f"conv{i}{j}d", nn.Conv2d(width, out, 3, padding=1))
                self.add_module(f"bn{i}{j}d", nn.BatchNorm2d(out))
        self.conv_final = nn.Conv2d(widths[0][0], channels, 1)

    def forward(self, code: Code, unpool: Any) -> Tensor:
        x = code.features
        for names, place in zip(self.blocks, reversed(code.places), strict=True):
            x = unpool(x, place)
            for name in names:
                x = _convolved(self, name, x)
        return self.conv_final(x)


def _convolved(part: nn.Module, name: str, x: Tensor) -> Tensor:
    return functional.relu(getattr(part, f"bn{name}")(getattr(part, f"conv{name}")(x)))


class Autoencoder(nn.Module):
    """Pixels in [0, 1], float [N, C, size, size] → their reconstruction, of the same shape.

    The reconstruction is not clipped. For the export, `portable` makes it pool and unpool with
    operators that every runtime has (`onnxplain.signal.unpooling`); the values are the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design, self.portable = design, False
        widths = WIDTHS[design.name]
        self.encoder = Encoder(widths, design.channels)
        self.decoder = Decoder(widths, design.channels)
        for name, values in (("mean", design.mean), ("std", design.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        pool, unpool = unpooling.PORTABLE if self.portable else unpooling.NATIVE
        code = self.encoder((pixels - self.mean) / self.std, pool)
        return self.decoder(code, unpool) * self.std + self.mean
