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

    @property
    def windows(self) -> int:
        """How many there are."""
        return int(np.prod(self.out))

    @property
    def tiles(self) -> bool:
        """Whether each element is in one window, and each window has all of its elements."""
        return (
            self.kernel == self.strides
            and {*self.dilations} == {1}
            and not any([*self.before, *self.after])
        )

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


def padded(op: OpBuilder, x: ir.Value, pads: Sequence[int], value: float = 0.0) -> ir.Value:
    """`x` with padding along its last axes: first before each of them, then after.

    For all axes where their number is known: of a Pad with `axes`, ONNX Runtime's WebGPU provider
    (1.30) makes one with twice the pads, which it then refuses.
    """
    along = len(pads) // 2
    if x.shape is None:
        return op.Pad(x, list(pads), value, list(range(-along, 0)))
    others = [0] * (len(x.shape) - along)
    return op.Pad(x, [*others, *pads[:along], *others, *pads[along:]], value)


def taps(op: OpBuilder, x: ir.Value, window: Window, padding: float = 0.0) -> list[ir.Value]:
    """Each of the window's elements of `x` [N, C, *size], for all windows at once: [N, C, *out]."""
    axes = list(range(-len(window.size), 0))
    pads = [*window.before, *(max(a, 0) for a in window.after)]
    if any(pads):
        x = padded(op, x, pads, padding)
    found = []
    for offset in window.offsets():
        ends = [
            o + (n - 1) * s + 1 for o, n, s in zip(offset, window.out, window.strides, strict=True)
        ]
        found.append(op.Slice(x, list(offset), ends, axes, list(window.strides)))
    return found


def side_by_side(
    op: OpBuilder, each: Sequence[ir.Value], window: Window, flat: bool = True
) -> ir.Value:
    """The window's elements, each [N, C, *out], as one tensor [N, C, elements, windows].

    Or [N, C, elements, *out] where not `flat`.
    """
    behind = [window.windows] if flat else window.out
    together = op.Concat(*each, axis=-len(window.out))
    return op.Reshape(together, [0, 0, window.elements, *behind])


def scatter(op: OpBuilder, columns: ir.Value, x: ir.Value, window: Window) -> ir.Value:
    """Add up, in each place of `x` [N, C, *size], what the windows hold for it: `taps` transposed.

    Args:
        columns: the window's elements as `side_by_side` has them. Axes before these join the batch.

    Raises:
        SourceError: the number of channels is known at run time only.
    """
    channels = None if x.shape is None else x.shape[1]
    if not isinstance(channels, int):
        raise SourceError(f"{x.name!r} has the shape {x.shape}; its channels must be a number")
    if len(window.size) == 2 and len(set(window.strides)) == 1:
        return _interleaved(op, columns, channels, window)
    return _transposed_convolution(op, columns, channels, x.dtype or ir.DataType.FLOAT, window)


def to_tiles(op: OpBuilder, y: ir.Value, window: Window) -> ir.Value:
    """Each window's value in `y` [N, C, *out] at all of its elements: [N, C, *size]; if it `tiles`.

    Runtimes have a fast path for a nearest-neighbour Resize. ONNX Runtime (1.31) on 2 cores, onto
    [1, 64, 224, 224]: 1.2 ms, where DepthToSpace takes 16.5 ms and a broadcasting Expand 20 ms.
    """
    return op.Resize(
        y,
        None,
        [1.0, 1.0, *map(float, window.kernel)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _interleaved(op: OpBuilder, columns: ir.Value, channels: int, window: Window) -> ir.Value:
    """The taps that meet in one place modulo the stride s are shifted and added; DepthToSpace
    interleaves these s · s sums. No tap is multiplied by anything.
    """
    s, axes = window.strides[0], [-2, -1]
    starts = [[o // s for o in offset] for offset in window.offsets()]
    cells = [
        max(-(-(b + n) // s), out + max(start))
        for b, n, out, start in zip(
            window.before, window.size, window.out, zip(*starts, strict=True), strict=True
        )
    ]
    sums: dict[tuple[int, ...], list[ir.Value]] = {
        phase: [] for phase in itertools.product(range(s), repeat=2)
    }
    each = _apart(op, columns, channels, window)
    for offset, start, tap in zip(window.offsets(), starts, each, strict=True):
        end = [c - n - b for c, n, b in zip(cells, window.out, start, strict=True)]
        if any([*start, *end]):
            tap = padded(op, tap, [*start, *end])
        sums[tuple(o % s for o in offset)].append(tap)
    if not all(sums.values()):
        zeros = op.Mul(next(filter(None, sums.values()))[0], 0.0)
        sums = {phase: found or [zeros] for phase, found in sums.items()}
    phases = [op.Sum(*found) if len(found) > 1 else found[0] for found in sums.values()]
    y = phases[0]
    if s > 1:
        y = op.DepthToSpace(op.Concat(*phases, axis=-3), blocksize=s)
    ends = [b + n for b, n in zip(window.before, window.size, strict=True)]
    if [*window.before] == [0, 0] and ends == [c * s for c in cells]:
        return y
    return op.Slice(y, list(window.before), ends, axes)


def _apart(op: OpBuilder, columns: ir.Value, channels: int, window: Window) -> Sequence[ir.Value]:
    """The window's elements, each [N, C, *out], of an image."""
    height, width = window.out
    stacked = op.Reshape(columns, [-1, channels, window.elements * height, width])
    if window.elements == 1:
        return [stacked]
    split: Sequence[ir.Value] = op.Split(
        stacked, axis=-2, num_outputs=window.elements, _outputs=window.elements
    )
    return split


def _transposed_convolution(
    op: OpBuilder, columns: ir.Value, channels: int, dtype: ir.DataType, window: Window
) -> ir.Value:
    """The same, one-hot kernels going over each channel."""
    spread = np.eye(window.elements, dtype=dtype.numpy())
    one_hot = ir.tensor(spread.reshape(window.elements, 1, *window.kernel), dtype=dtype)
    merged = op.Reshape(columns, [-1, window.elements, *window.out])
    name = f"pullback.one_hot_{len(op.builder.graph.initializers)}"
    kernel = op.builder.initializer(one_hot, name, qualify=False)
    scattered = op.ConvTranspose(merged, kernel, **window.conv_attributes())
    return op.Reshape(scattered, [-1, channels, *window.size])
