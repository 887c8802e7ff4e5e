"""Sliding windows, which convolutions and pools share; gathering and scattering by them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError


@dataclass(frozen=True)
class Window:
    """A window's geometry, one entry per spatial axis.

    `after` includes what a `ceil_mode` window hangs over; it is negative where the last entries
    of the input are in no window, so that always
    `before + size + after == (out - 1) * strides + (kernel - 1) * dilations + 1`.
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def elements(self) -> int:
        return int(np.prod(self.kernel))

    def offsets(self) -> list[tuple[int, ...]]:
        """The window's elements, in row-major order, as offsets from its first one."""
        steps = [
            [t * d for t in range(k)] for k, d in zip(self.kernel, self.dilations, strict=True)
        ]
        return list(itertools.product(*steps))

    def conv_attributes(self) -> dict[str, list[int]]:
        """Attributes of the `ConvTranspose` that scatters from `out` back to `size`."""
        after = [max(a, 0) for a in self.after]
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.before, *after],
            "output_padding": [max(-a, 0) for a in self.after],
        }

    def counts(self, pads: Sequence[int] | None) -> np.ndarray:
        """How many elements each window averages over, of shape `out`.

        Explicit `pads` (before…, after…) count as elements, `None` counts only the input's own;
        what hangs over because of `ceil_mode` never counts.
        """
        axes = len(self.size)
        low, high = (pads[:axes], pads[axes:]) if pads is not None else ([0] * axes, [0] * axes)
        per_axis = []
        for i in range(axes):
            first = np.arange(self.out[i]) * self.strides[i] - self.before[i]
            at = first[:, None] + np.arange(self.kernel[i]) * self.dilations[i]
            per_axis.append(((at >= -low[i]) & (at < self.size[i] + high[i])).sum(1))
        return np.prod(np.array(np.meshgrid(*per_axis, indexing="ij")), axis=0)


def unfold(op: OpBuilder, x: ir.Value, window: Window, padding: float = 0.0) -> ir.Value:
    """The windows of `x` [N, C, *size] side by side: [N, C, elements, *out]; exact copies."""
    spatial = len(window.size)
    axes = list(range(-spatial, 0))
    pads = [*window.before, *(max(a, 0) for a in window.after)]
    if any(pads):
        x = op.Pad(x, pads, padding, axes)
    columns = []
    for offset in window.offsets():
        ends = [
            o + (n - 1) * s + 1 for o, n, s in zip(offset, window.out, window.strides, strict=True)
        ]
        column = op.Slice(x, list(offset), ends, axes, list(window.strides))
        columns.append(op.Unsqueeze(column, [-spatial - 1]))
    return op.Concat(*columns, axis=-spatial - 1)


def fold(op: OpBuilder, columns: ir.Value, x: ir.Value, window: Window) -> ir.Value:
    """Add each window's `columns` [N, C, elements, *out] to where it lay in `x` [N, C, *size].

    A transposed convolution with one-hot kernels, over all channels alike.

    Raises:
        SourceError: the number of channels is known at run time only.
    """
    channels = None if x.shape is None else x.shape[1]
    if not isinstance(channels, int):
        raise SourceError(f"{x.name!r} has the shape {x.shape}; its channels must be a number")
    dtype = x.dtype or ir.DataType.FLOAT
    spread = np.eye(window.elements, dtype=dtype.numpy())
    one_hot = ir.tensor(spread.reshape(window.elements, 1, *window.kernel), dtype=dtype)
    merged = op.Reshape(columns, [-1, window.elements, *window.out])
    name = f"pullback.one_hot_{len(op.builder.graph.initializers)}"
    kernel = op.builder.initializer(one_hot, name, qualify=False)
    scattered = op.ConvTranspose(merged, kernel, **window.conv_attributes())
    return op.Reshape(scattered, [-1, channels, *window.size])
