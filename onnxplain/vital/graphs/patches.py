"""What a window sees that slides over the picture, each time as the network's whole input.

VITAL searches so for what excites a channel: with a window of 64 of 224 pixels, moved by 51.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.channels import Span
from onnxplain.errors import InputError
from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.tensors import dims

SIDE = 64 / 224
"""VITAL's window, as a part of the picture's shorter side."""

_STRIDE = 0.8


@dataclass(frozen=True)
class Patches:
    """Square patches of a picture: their side in pixels, the stride, and rows and columns."""

    side: int
    stride: int
    grid: tuple[int, int]

    @property
    def count(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def field(self) -> tuple[Span, Span]:
        """Which pixels each sees, along rows and along columns."""
        span = Span(self.stride, 0, self.side - 1)
        return span, span


def patches_of(image: ir.Value, side: int) -> Patches:
    """As VITAL has them: four fifths of the side apart.

    Raises:
        InputError: the side is greater than the picture's, or less than 2.
    """
    height, width, _ = image_size(image)
    if not 2 <= side <= min(height, width):
        raise InputError(f"a patch has from 2 to {min(height, width)} pixels a side, not {side}")
    stride = int(_STRIDE * side)
    return Patches(side, stride, ((height - side) // stride + 1, (width - side) // stride + 1))


def all_patches(op: OpBuilder, image: ir.Value, patches: Patches) -> ir.Value:
    """[N · count, …]: those of an image after one another, resized bilinearly to its size."""
    across = list(image_axes(image)[:2])
    height, width, _ = image_size(image)
    cuts = []
    for at in product(*map(range, patches.grid)):
        first = [patches.stride * place for place in at]
        last = [begin + patches.side for begin in first]
        cuts.append(op.Unsqueeze(op.Slice(image, first, last, across), [1]))
    shape = [-1, *dims(image)[1:]]
    for axis in across:
        shape[axis] = patches.side
    flat = op.Reshape(op.Concat(*cuts, axis=1), shape)
    resized = op.Resize(flat, None, None, [height, width], axes=across, mode="linear")
    resized.type = image.type
    resized.shape = ir.Shape([ir.SymbolicDim("patches"), *dims(image)[1:]])
    return resized
