"""A pool's geometry as the kernels take it, and the choice between their two forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxplain.errors import InputError

EXPONENTIALS = 16
"""Per element of the input, from which on statistics are stored.

Recomputing a window's statistics costs exponentials, storing them costs bytes. An H100 computes
3.7e12 exponentials and moves 3.35e12 bytes a second, an A100 2.4e12 and 2.0e12: one byte costs
about what one exponential does. For the usual 3 × 3 window of stride 2, recomputing costs 9
exponentials and 9 bytes (float32) per element, storing 2 and 17; for stride 1, 81 and 12 stand
against 9 and 32.
"""


@dataclass(frozen=True)
class Pool:
    """A pool along two axes, (vertical, horizontal).

    `before` is the padding above and at the left. What lies below and at the right follows from
    the sizes of input and output.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]

    @classmethod
    def along(
        cls,
        kernel: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        before: Sequence[int],
    ) -> Pool:
        """From one number per axis, for two axes or one: a pool along one does nothing vertically.

        Raises:
            InputError: more than two axes.
        """
        if len(kernel) > 2:
            raise InputError(f"the kernels pool along one axis or two, not {len(kernel)}")
        rest = 2 - len(kernel)
        one, none = (1,) * rest, (0,) * rest
        return cls((*one, *kernel), (*one, *strides), (*one, *dilations), (*none, *before))  # type: ignore[arg-type]

    @property
    def windows_per_cell(self) -> int:
        """How many windows an element may lie in, which are those that its cell looks at."""
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.strides, self.dilations
        return ((kh - 1) * dh // sh + 1) * ((kw - 1) * dw // sw + 1)

    @property
    def stores_statistics(self) -> bool:
        """Whether a first kernel leaves each window's statistics for the second to read."""
        taps = self.kernel[0] * self.kernel[1]
        elements = self.strides[0] * self.strides[1]
        return self.windows_per_cell * taps > EXPONENTIALS * elements

    def cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Cells down and across an input of that size."""
        down, across = (
            (n - 1 + b) // s - b // s + 1
            for n, b, s in zip(size, self.before, self.strides, strict=True)
        )
        return down, across

    def constants(self) -> dict[str, int]:
        """The compile-time constants by which the kernels know the geometry."""
        pairs = {"K": self.kernel, "S": self.strides, "D": self.dilations, "B": self.before}
        return {name + axis: pair[i] for name, pair in pairs.items() for i, axis in enumerate("HW")}
