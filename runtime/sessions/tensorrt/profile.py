"""The sizes that an engine takes where its graph leaves them open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxplain.contract.explain import IMAGE, NO_IMAGE, TARGET, Preprocessing
from onnxplain.contract.pixels import HEIGHT, NV12, PHOTOGRAPH_SIDES, ROWS, WIDTH, Pixels
from onnxplain.errors import BackendError
from onnxplain.runtime.sessions.tensorrt.engine import Shape

BATCHES = (1, 8, 64)
TARGETS = (1, 2, 16)
"""The smallest, usual and largest number of images, and of targets for each of them."""

SIDES, NV12_ROWS = (2, 640, 4096), (3, 960, 6144)
"""The same of a photograph's height and width, where the graph does the preprocessing; and of the
rows of NV12."""

NETWORK_INPUT = Pixels()

Shapes: TypeAlias = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class Profile:
    """The smallest, usual and largest number of images and of targets, and sizes known by name; and
    the same three of an image's height and width, by the names of those, where they are open."""

    batches: tuple[int, int, int]
    targets: tuple[int, int, int]
    sizes: Mapping[str, int]
    sides: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(
        cls,
        batches: Sequence[int] | None,
        targets: Sequence[int],
        sizes: Mapping[str, int],
        pre: Preprocessing = NO_IMAGE,
        pixels: Pixels = NETWORK_INPUT,
    ) -> Profile:
        """Of three numbers each, or one that is all three. Sides of any size are from half the
        usual ones to twice those, of NV12 even ones. Without `batches` those are `BATCHES`; of
        photographs 1, as 64 of the largest take more than 25 GB.

        Raises:
            BackendError: others, or not in rising order.
        """
        sides: dict[str, tuple[int, int, int]] = {}
        if pre.any_size:
            usuals = pre.height, pre.width
            for *names, usual in zip((HEIGHT, WIDTH), PHOTOGRAPH_SIDES, usuals, strict=True):
                least = max(usual // 2 // pre.multiple * pre.multiple, pre.multiple, pre.least)
                numbers = [least, usual, 2 * usual]
                if pixels.format == NV12:
                    numbers = [n + n % 2 for n in numbers]
                least, usual, most = numbers
                sides |= dict.fromkeys(names, (least, usual, most))
            least, usual, most = (3 * (side // 2) for side in sides[HEIGHT])
            sides[ROWS] = least, usual, most
        if batches is None:
            batches = (1,) if pixels else BATCHES
        return cls(_range(batches, "batch"), _range(targets, "targets"), dict(sizes), sides)

    def shapes(self, tensor: Any) -> Shapes:
        """The smallest, usual and largest shape of an input with open dimensions.

        Raises:
            BackendError: a dimension of unknown size.
        """
        sizes = []
        for axis, size in enumerate(tensor.shape):
            name = tensor.get_dimension_name(axis)
            known = size if size != -1 else self.sizes.get(name)
            if known is not None:
                sizes.append((known,) * 3)
            elif name in self.sides:
                sizes.append(self.sides[name])
            elif axis == 0:
                sizes.append(self.batches)
            elif tensor.name == TARGET:
                sizes.append(self.targets)
            elif tensor.name == IMAGE and tensor.dtype.name == "UINT8":
                is_rows = tensor.get_dimension_name(axis) == ROWS
                sizes.append(NV12_ROWS if is_rows else SIDES)
            else:
                raise BackendError(
                    f"dimension {axis} of the input '{tensor.name}' is open; TensorRT needs its "
                    "size: export the graph with size="
                )
        least, usual, most = zip(*sizes, strict=True)
        return least, usual, most


def _range(numbers: Sequence[int], what: str) -> tuple[int, int, int]:
    """(smallest, usual, largest)."""
    three = tuple(numbers) * (3 if len(numbers) == 1 else 1)
    if len(three) != 3 or not 1 <= three[0] <= three[1] <= three[2]:
        raise BackendError(
            f"the profile's {what} is one number, or the smallest, usual and largest in rising "
            f"order, from 1; not {', '.join(map(str, numbers)) or 'nothing'}"
        )
    return three
