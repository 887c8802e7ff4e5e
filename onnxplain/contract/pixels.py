"""What an explain graph says of its `image` where that is pixels as a camera has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

RGB, RGB_PLANAR, BGR, BGR_PLANAR, GRAY, NV12 = FORMATS = (
    *("rgb", "rgb-planar", "bgr", "bgr-planar", "gray", "nv12"),
)
"""How pixels lie in `image`, uint8, of any height h and width w: rgb and bgr [N, h, w, 3], the same
planar [N, 3, h, w], gray [N, h, w], and nv12 [N, h · 3/2, w] (BT.601 of limited range: a plane of
luma above one of interleaved chroma of half the size; h and w are even)."""

NETWORK, PHOTOGRAPH = GEOMETRIES = ("network", "photograph")
"""Of what size the pullback is: the network's input, or the photograph."""

INT8, FLOAT16 = QUANTISED = ("int8", "float16")
"""As what a pullback may be put out."""

PULLBACK_SCALE = "pullback_scale"
"""The output float32 [N], or [N,K] for several targets, by which a quantised pullback is
multiplied."""

HEIGHT, WIDTH, ROWS = "height", "width", "rows"
"""The names of open dimensions of `image`, pixels or the network's own input; rows are those of
nv12, 3/2 of the height."""

PHOTOGRAPH_SIDES = "photograph_height", "photograph_width"
"""The names of those that are a photograph's, and not the network's."""

SEEN, PULLBACK_SEEN, PULLBACK_WHOLE = "image.seen", "pullback.seen", "pullback.whole"
"""Values within a graph: the network's input that it makes of `image`, and the pullback before it
is laid on the photograph, and before it is quantised."""


@dataclass(frozen=True)
class Pixels:
    """How `image` is made the network's input, and what becomes of the pullback.

    Attributes:
        format: one of `FORMATS`; empty where `image` is the network's own input.
        geometry: one of `GEOMETRIES`.
        quantised: one of `QUANTISED`, of the pullback, which `pullback_scale` multiplies; else
            empty.
    """

    format: str = ""
    geometry: str = NETWORK
    quantised: str = ""

    def __bool__(self) -> bool:
        return bool(self.format)

    @property
    def axes(self) -> tuple[int, int]:
        """Those of height and width."""
        return (2, 3) if self.format in (RGB_PLANAR, BGR_PLANAR) else (1, 2)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """That of `image` behind the batch, None where open; of a network's own input none."""
        if not self:
            return ()
        if self.format in (GRAY, NV12):
            return None, None
        return (3, None, None) if self.axes == (2, 3) else (None, None, 3)

    def held(self, size: tuple[int, int]) -> tuple[int, int]:
        """The width and height of what a frame holds of a photograph of that size: NV12 leaves out
        an odd last row and column."""
        width, height = size
        return (width - width % 2, height - height % 2) if self.format == NV12 else size

    @property
    def described(self) -> str:
        """What `image` holds, in words."""
        names = iter(("h * 3/2" if self.format == NV12 else "h", "w"))
        sizes = ", ".join(str(size or next(names)) for size in self.shape)
        return f"uint8 [N, {sizes}]: {self.format}, of any height h and width w"

    def check(self) -> None:
        """
        Raises:
            ValueError: something that no export writes.
        """
        for name, value, choices in (
            ("format", self.format, ("", *FORMATS)),
            ("geometry", self.geometry, GEOMETRIES),
            ("quantised", self.quantised, ("", *QUANTISED)),
        ):
            if value not in choices:
                raise ValueError(
                    f"pixels: {name} is {value!r:.40}, must be one of {', '.join(choices)}"
                )
        if not self.format and self.geometry != NETWORK:
            raise ValueError(f"pixels: geometry is {self.geometry}, of an image without a format")

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Of what JSON makes of one.

        Raises:
            TypeError: it is none.
        """
        return cls(**entry)
