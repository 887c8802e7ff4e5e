"""A transposed convolution of stride s, by the phases of its output (Shi et al., arXiv 1609.05158).

Output o takes input j through kernel element o + p - s j. With o + p = s q + a that element is
a + s τ, τ = q - j: so the outputs of each phase a are a convolution of stride 1, over q - τ, with
every s-th element of the kernel from a on, turned around; DepthToSpace then puts the phases between
one another. `export.lower` makes one convolution of all phases of a kernel padded to whole ones,
`runtime.sessions.openvino.strided` one of each phase.
"""

from __future__ import annotations

from typing import NamedTuple


class Phase(NamedTuple):
    """The convolution of one phase along an axis: its elements, and zeros before and after."""

    taps: int
    before: int
    after: int


def phase(element: int, first: int, stride: int, kernel: int, given: int, count: int) -> Phase:
    """The convolution that gives the outputs of a phase.

    Args:
        element: a, the first of the kernel's that meets them.
        first: q of the first of them.
        stride: s.
        kernel: how many elements it has.
        given: how many inputs there are.
        count: how many outputs are wanted of the phase.
    """
    taps = len(range(element, kernel, stride))
    before = taps - 1 - first
    return Phase(taps, before, count - given - before + taps - 1)
