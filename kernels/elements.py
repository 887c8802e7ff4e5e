"""The elements of sliding windows as one tensor, for what is computed over each window.

The layouts, of x [N, C, *size] under windows [N, C, *out], have the same methods. So a formula is
written once: over `elements`, and numbers per window that `beside` and the sums put next to them.
"""

from __future__ import annotations

from typing import Protocol

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.kernels.windows import Window, scatter, side_by_side, taps, to_tiles


class Elements(Protocol):
    """A layout of the windows' elements."""

    elements: ir.Value

    def highest(self) -> ir.Value:
        """The largest of each window, beside its elements."""
        ...

    def sums(self, y: ir.Value) -> ir.Value:
        """The sum over each window of `y`, of the shape of `elements`, in a unit of the layout."""
        ...

    def per_window(self, g: ir.Value) -> ir.Value:
        """`g` [N, C, *out] as `sums` has its numbers, in the same unit."""
        ...

    def beside(self, numbers: ir.Value) -> ir.Value:
        """Numbers per window as what broadcasts to all elements of it."""
        ...

    def added(self, y: ir.Value) -> ir.Value:
        """`y`, of the shape of `elements`, added up where each element comes from: [N, C, *size]"""
        ...


class Tiles:
    """Of windows that tile, the elements stay where they are: [N, C, *size]. Sums are averages."""

    def __init__(self, op: OpBuilder, x: ir.Value, window: Window) -> None:
        self.elements = x
        self._op, self._window = op, window

    def highest(self) -> ir.Value:
        kernel, strides = list(self._window.kernel), list(self._window.strides)
        return self.beside(self._op.MaxPool(self.elements, kernel_shape=kernel, strides=strides))

    def sums(self, y: ir.Value) -> ir.Value:
        kernel, strides = list(self._window.kernel), list(self._window.strides)
        return self._op.AveragePool(y, kernel_shape=kernel, strides=strides)

    def per_window(self, g: ir.Value) -> ir.Value:
        return self._op.Mul(g, 1 / self._window.elements)

    def beside(self, numbers: ir.Value) -> ir.Value:
        return to_tiles(self._op, numbers, self._window, self.elements)

    def added(self, y: ir.Value) -> ir.Value:
        return y


class Columns:
    """[N, C, elements, windows]: as few operations as possible, each of a whole tensor.

    Padding takes part as the value 0.

    Args:
        flat: the windows are one axis, which is quicker on OpenVINO. If not, they have the axes of
            the image, and cotangents may have axes before N.
    """

    def __init__(self, op: OpBuilder, x: ir.Value, window: Window, flat: bool = True) -> None:
        self._op, self._x, self._window, self._flat = op, x, window, flat
        self._axis = -2 if flat else -1 - len(window.size)
        self.elements = side_by_side(op, taps(op, x, window), window, flat)

    def highest(self) -> ir.Value:
        return self._op.ReduceMax(self.elements, [self._axis], keepdims=1)

    def sums(self, y: ir.Value) -> ir.Value:
        return self._op.ReduceSum(y, [self._axis], keepdims=1)

    def per_window(self, g: ir.Value) -> ir.Value:
        if self._flat:
            return self._op.Reshape(g, [0, 0, 1, self._window.windows])
        return self._op.Unsqueeze(g, [self._axis])

    def beside(self, numbers: ir.Value) -> ir.Value:
        return numbers

    def added(self, y: ir.Value) -> ir.Value:
        return scatter(self._op, y, self._x, self._window)


def elements_of(op: OpBuilder, x: ir.Value, window: Window) -> Elements:
    """The layout that is quickest where it is written out in a graph."""
    tiles = window.tiles and window.is_exact
    return Tiles(op, x, window) if tiles else Columns(op, x, window)
