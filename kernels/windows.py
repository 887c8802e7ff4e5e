"""Sliding windows, which convolutions and pools share; gathering and scattering by them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    Along an axis of open size, `size` and `out` are None. As many windows slide over some sizes,
    one for each offset within a stride: `after` is that of the largest of them, and the size is up
    to `slack` less. Elsewhere `slack` is 0.
    """

    size: tuple[int | None, ...]
    out: tuple[int | None, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    slack: tuple[int, ...]

    @property
    def elements(self) -> int:
        return int(np.prod(self.kernel))

    @property
    def windows(self) -> int:
        """How many there are; -1 where that is open, as a Reshape has it."""
        known = [n for n in self.out if n is not None]
        return math.prod(known) if len(known) == len(self.out) else -1

    @property
    def is_open(self) -> bool:
        return None in self.size

    @property
    def is_exact(self) -> bool:
        """Whether `after` is that of every size."""
        return not any(self.slack)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a window's last element is from its first."""
        return tuple((k - 1) * d for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        """The zeros behind an input of any of its sizes that let each window have all elements."""
        return tuple(max(a + s, 0) for a, s in zip(self.after, self.slack, strict=True))

    @property
    def tiles(self) -> bool:
        """Whether each element is in one window, and each window has all of its elements; but for
        the last elements of those sizes that windows do not fill."""
        return (
            self.kernel == self.strides
            and {*self.dilations} == {1}
            and not any(self.before)
            and all(-a == s for a, s in zip(self.after, self.slack, strict=True))
        )

    def sizes(self, op: OpBuilder, x: ir.Value, more: Sequence[int] = ()) -> ir.Value:
        """The size of `x` [N, C, *size] along each axis, and `more`, where one is open."""
        shape = op.Shape(x, start=-len(self.size))
        return op.Add(shape, list(more)) if any(more) else shape

    def outs(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """How many windows slide over `x` [N, C, *size] along each axis, where that is open."""
        around = zip(self.before, self.after, self.slack, self.reach, strict=True)
        more = [b + a + s - r - 1 for b, a, s, r in around]
        starts = op.Add(op.Shape(x, start=-len(self.size)), more)
        return op.Add(op.Div(starts, list(self.strides)), 1)

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
        """How many elements each window averages over, of shape `out`, which is known.

        Explicit `pads` (before…, after…) count as elements, `None` counts only the input's own;
        what hangs over because of `ceil_mode` never counts.
        """
        axes = len(self.size)
        low, high = (pads[:axes], pads[axes:]) if pads is not None else ([0] * axes, [0] * axes)
        per_axis = []
        for i, (n, out) in enumerate(zip(self.size, self.out, strict=True)):
            assert n is not None
            assert out is not None
            first = np.arange(out) * self.strides[i] - self.before[i]
            at = first[:, None] + np.arange(self.kernel[i]) * self.dilations[i]
            per_axis.append(((at >= -low[i]) & (at < n + high[i])).sum(1))
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
    pads = [*window.before, *window.padding]
    if any(pads):
        x = padded(op, x, pads, padding)
    found = []
    for offset in window.offsets():
        ends = [_end(window, axis, first) for axis, first in enumerate(offset)]
        found.append(op.Slice(x, list(offset), ends, axes, list(window.strides)))
    return found


def _end(window: Window, axis: int, first: int) -> int:
    """Behind the last of those elements along an axis that have the offset `first`; from the end of
    what is padded where its size is open."""
    out = window.out[axis]
    if out is not None:
        return first + (out - 1) * window.strides[axis] + 1
    unused = min(window.after[axis] + window.slack[axis], 0)
    return (first - window.reach[axis] + unused) or END


END = int(np.iinfo(np.int64).max)
"""Of a Slice to the end of an axis."""


def cut(op: OpBuilder, y: ir.Value, x: ir.Value, window: Window) -> ir.Value:
    """`y` [N, C, …], of the largest size over which as many windows slide, to that of x."""
    if window.is_exact:
        return y
    axes = list(range(-len(window.size), 0))
    return op.Slice(y, [0] * len(axes), window.sizes(op, x), axes)


def side_by_side(
    op: OpBuilder, each: Sequence[ir.Value], window: Window, flat: bool = True
) -> ir.Value:
    """The window's elements, each [N, C, *out], as one tensor [N, C, elements, windows].

    Or [N, C, elements, *out] where not `flat`.
    """
    axis = -len(window.out)
    if flat or not window.is_open:
        behind = [window.windows] if flat else list(window.out)
        together = op.Concat(*each, axis=axis)
        return op.Reshape(together, [0, 0, window.elements, *behind])
    return op.Concat(*(op.Unsqueeze(tap, [axis - 1]) for tap in each), axis=axis - 1)


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
        return _interleaved(op, columns, channels, x, window)
    return _transposed_convolution(op, columns, channels, x, window)


def to_tiles(op: OpBuilder, y: ir.Value, window: Window, x: ir.Value) -> ir.Value:
    """Each window's value in `y` [N, C, *out] at all of its elements in `x` [N, C, *size], and 0 at
    those that are in none; if it `tiles`.

    Runtimes have a fast path for a nearest-neighbour Resize. ONNX Runtime (1.31) on 2 cores, onto
    [1, 64, 224, 224]: 1.2 ms, where DepthToSpace takes 16.5 ms and a broadcasting Expand 20 ms.
    """
    if not window.is_exact:
        y = padded(op, y, [0] * len(window.size) + [1] * len(window.size))
    high = op.Resize(
        y,
        None,
        [1.0, 1.0, *map(float, window.kernel)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return cut(op, high, x, window)


def _interleaved(
    op: OpBuilder, columns: ir.Value, channels: int, x: ir.Value, window: Window
) -> ir.Value:
    """The taps that meet in one place modulo the stride s are shifted and added; DepthToSpace
    interleaves these s · s sums. No tap is multiplied by anything.
    """
    s, axes = window.strides[0], [-2, -1]
    starts = [[o // s for o in offset] for offset in window.offsets()]
    # By how much the last place of x, and the cells that hold it, are behind as many cells as
    # there are windows.
    last = [r + 1 - s - a for r, a in zip(window.reach, window.after, strict=True)]
    more = [max(-(-n // s), r // s) for n, r in zip(last, window.reach, strict=True)]
    sums: dict[tuple[int, ...], list[ir.Value]] = {
        phase: [] for phase in itertools.product(range(s), repeat=2)
    }
    each = _apart(op, columns, channels, x, window)
    for offset, start, tap in zip(window.offsets(), starts, each, strict=True):
        end = [m - b for m, b in zip(more, start, strict=True)]
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
    if not window.is_exact:
        return op.Slice(y, list(window.before), window.sizes(op, x, window.before), axes)
    behind = [n - m * s for n, m in zip(last, more, strict=True)]
    if not any([*window.before, *behind]):
        return y
    return op.Slice(y, list(window.before), [n or END for n in behind], axes)


def _apart(
    op: OpBuilder, columns: ir.Value, channels: int, x: ir.Value, window: Window
) -> Sequence[ir.Value]:
    """The window's elements, each [N, C, *out], of an image."""
    shape: Any = [-1, channels]
    if window.is_open:
        stacked_sizes = op.Mul(window.outs(op, x), [window.elements, 1])
        shape = op.Concat(shape, stacked_sizes, axis=0)
    else:
        height, width = window.out
        shape += [window.elements * (height or 0), width]
    stacked = op.Reshape(columns, shape)
    if window.elements == 1:
        return [stacked]
    split: Sequence[ir.Value] = op.Split(
        stacked, axis=-2, num_outputs=window.elements, _outputs=window.elements
    )
    return split


def _transposed_convolution(
    op: OpBuilder, columns: ir.Value, channels: int, x: ir.Value, window: Window
) -> ir.Value:
    """The same, one-hot kernels going over each channel."""
    dtype = x.dtype or ir.DataType.FLOAT
    spread = np.eye(window.elements, dtype=dtype.numpy())
    one_hot = ir.tensor(spread.reshape(window.elements, 1, *window.kernel), dtype=dtype)
    shape: Any = [-1, window.elements, *window.out]
    if window.is_open:
        shape = op.Concat(shape[:2], window.outs(op, x), axis=0)
    merged = op.Reshape(columns, shape)
    name = f"pullback.one_hot_{len(op.builder.graph.initializers)}"
    kernel = op.builder.initializer(one_hot, name, qualify=False)
    scattered = op.ConvTranspose(merged, kernel, **window.conv_attributes())
    sizes: Any = window.size
    if window.is_open:
        scattered, sizes = cut(op, scattered, x, window), window.sizes(op, x)
        return op.Reshape(scattered, op.Concat([-1, channels], sizes, axis=0))
    return op.Reshape(scattered, [-1, channels, *sizes])
