"""How numbers become colours: the options of every picture, and the formulas behind them.

`onnxplain.contract.colours` has the arrays of these, so that options are read without NumPy.

A pullback p [C, H, W] is drawn in four steps. `onnxplain.runtime.pictures.render` takes them in
NumPy, `onnxplain.export.drawn` as nodes of the graph, both by the numbers that stand here.

1. A value v of each pixel: Σ_c |p_c|, or Σ_c p_c where the picture is signed, smoothed by a
   Gaussian (`gaussian`). The style `pullback` keeps the channels instead: v = p. What is not
   finite, or not below `GREATEST`, counts as 0, so that no sum of it is infinite in float32.
2. v / w, clipped to [0, 1], or to [-1, 1] where v has a sign. The white point w is an order
   statistic: of the n magnitudes |v| at every s-th row and column, the k-th greatest, for
   k = n - ⌈(n - 1) · percentile / 100⌉ and the least s up to 96 with which k ≤ 3840 (`thinning`):
   as many as TensorRT sorts. Where that is 0, w is the greatest |v| of all; where that is too, 1.
3. Its place among the `LEVELS` of a colour map: round(2048 u), for u = v, or (v + 1) / 2 where it
   has a sign.
4. That level's colour; of an overlay (1 - a) · 0.8 · grey + a · colour, where
   a = alpha · |v|^¾ and grey = 0.299 R + 0.587 G + 0.114 B, of the photograph. It is rounded by
   adding ½ and dropping the fraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from onnxplain.errors import InputError
from onnxplain.options import check, declared, option

PICTURE, TOP_CLASSES, TOP_PROBABILITIES = "picture", "top_classes", "top_probabilities"
"""Outputs of a file exported with picture= or topk=: uint8 [N,h,w,3], or [N,K,h,w,3] for several
targets, with four channels where it is transparent; int64 [N,k]; and float32 [N,k]."""

PULLBACK_STYLE, SIGNED, SEISMIC, HEATMAP, OVERLAY, GRID = (
    *("pullback", "signed", "seismic", "heatmap", "overlay", "grid"),
)
STYLES = (PULLBACK_STYLE, SIGNED, SEISMIC, HEATMAP, OVERLAY, GRID)
DRAWN = (HEATMAP, OVERLAY, SIGNED, PULLBACK_STYLE)
"""The styles that a graph draws itself."""

PHOTOGRAPH, NETWORK = "photograph", "network"
"""Of which size a picture is."""

STRENGTHS = {
    # Black, violet, red, orange, pale yellow (matplotlib's inferno, CC0).
    "inferno": (
        *((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51)),
        *((249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ),
    # Violet, blue, green, yellow (matplotlib's viridis, CC0).
    "viridis": (
        *((68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140)),
        *((40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37)),
    ),
    # Blue, grey, yellow: nearly the same to people who see no red or no green (Nuñez et al. 2018).
    "cividis": (
        *((0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115)),
        *((138, 134, 120), (165, 156, 116), (195, 179, 105), (225, 204, 85), (254, 232, 56)),
    ),
    "grey": ((0, 0, 0), (255, 255, 255)),
}
"""Colour maps from nothing to the strongest, at even steps: lightness rises evenly."""

SIGNS = {
    # Blue, grey, red, both ends as dark, told apart without red or green (Moreland 2009).
    "coolwarm": (
        *((59, 76, 192), (98, 130, 234), (141, 176, 254), (185, 208, 249), (221, 220, 220)),
        *((245, 196, 172), (244, 152, 122), (221, 95, 75), (180, 4, 38)),
    ),
    # Dark blue, blue, white, red, dark red (matplotlib's seismic).
    "seismic": ((0, 0, 76.5), (0, 0, 255), (255, 255, 255), (255, 0, 0), (127.5, 0, 0)),
}
"""Colour maps from what lowers a score over nothing to what raises it."""

LEVELS = 2048
"""Of a colour map, but for one; an even number, so that 0 of a signed one is a level."""

GREATEST = 1e30
"""What the magnitudes are below that are drawn."""

GREY = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in grey (ITU-R BT.601)."""

SORTED = 3840
"""Values that TensorRT's TopK gives at most."""

STEPS = 96
"""The most rows and columns of which one is taken for a white point: enough of three channels of 11
million pixels, whatever the percentile."""

_MAPS = (HEATMAP, OVERLAY, SIGNED, GRID)
_OF_STYLES = {
    "alpha": (OVERLAY, GRID),
    "smoothing": _MAPS,
    "percentile": (*_MAPS, PULLBACK_STYLE),
    "colour_bar": _MAPS,
}
_OF_GRAPHS = ("colours", "signed", "alpha", "transparent", "percentile", "smoothing")


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How an explanation is drawn."""

    style: str = option(
        PULLBACK_STYLE,
        "pullback, a change of the pixels, in their own colours on mid-grey; signed, red where it "
        "raised the score and blue where it lowered it, grey where it did nothing; heatmap, where "
        "it is strong; overlay, the same over the photograph in grey; seismic, the mean over the "
        "channels as the authors of semantic pullbacks show it, each sign by its own greatest; or "
        "grid, photograph, pullback and overlay with all that is said of them.",
        choices=STYLES,
    )
    colours: str | None = option(
        None,
        f"The colour map: {', '.join(STRENGTHS)}; of what is signed {' or '.join(SIGNS)}.",
        choices=(*STRENGTHS, *SIGNS),
        unset="inferno, and coolwarm of what is signed",
    )
    signed: bool = option(
        False, "Of heatmap and overlay: colours by the sign, as of the style signed."
    )
    alpha: float = option(
        0.85, "Of overlay: how much of the photograph the strongest colour covers.", least=0, most=1
    )
    transparent: bool = option(
        False,
        "Of overlay: leave the photograph out, for the picture to be laid on it: its fourth "
        "channel says how much of it each pixel covers.",
    )
    percentile: float | None = option(
        None,
        "The percentile of the magnitudes from which on a colour is full.",
        least=0,
        most=100,
        unset="99, and 99.5 of what has signs",
    )
    smoothing: float | None = option(
        None,
        "The standard deviation of the Gaussian that smooths heatmap, overlay and signed, in per "
        "cent of the shorter side; 0 leaves every pixel as it is.",
        least=0,
        most=50,
        unset="2",
    )
    colour_bar: bool | None = option(
        None,
        "Show under a map what its colours stand for.",
        unset="in a grid",
    )
    captions: bool | None = option(
        None,
        "Say under a picture what is explained, its probability, and by which method.",
        unset="where there are several",
    )
    size: str = option(
        PHOTOGRAPH,
        "photograph, the whole of it at its own resolution; network, what the network saw of it, "
        "pixel by pixel.",
        choices=(PHOTOGRAPH, NETWORK),
    )
    longest: int | None = option(
        None,
        "The most pixels of a photograph's longer side; a larger one is reduced.",
        least=16,
        unset="1024, and 512 in a grid",
    )

    @classmethod
    def of_graph(cls, text: str) -> PictureOptions:
        """What a graph is to draw: "overlay", or with options "overlay,alpha=0.6,colours=cividis".

        Raises:
            InputError: an option that there is not, or that a graph does not have; or a value that
                is not declared.
        """
        style, *others = (part.strip() for part in text.split(","))
        given: dict[str, Any] = {"style": style}
        for part in others:
            name, equals, value = part.partition("=")
            if name in given or name not in _OF_GRAPHS or not equals:
                raise InputError(
                    f"picture is one of {', '.join(DRAWN)}, and behind it, with commas between and "
                    f"each once, NAME=VALUE of {', '.join(_OF_GRAPHS)}; not {part!r}"
                )
            given[name] = _read(name, value)
        found = cls(**given)
        found.check_of_graph()
        return found

    def check_of_graph(self) -> None:
        """
        Raises:
            InputError: this is none that a graph draws.
        """
        self.check()
        if self.style not in DRAWN:
            raise InputError(f"a graph draws {', '.join(DRAWN)}, and no {self.style}")
        for name in declared(PictureOptions).keys() - {"style", *_OF_GRAPHS}:
            if getattr(self, name) != getattr(PictureOptions(), name):
                raise InputError(f"{name} is of pages, and a graph draws the picture alone")

    def check(self) -> None:
        """
        Raises:
            InputError: a value that is not declared, or some that do not go together.
        """
        check(self)
        if self.signed and self.style not in (HEATMAP, OVERLAY, GRID, SIGNED):
            raise InputError(
                f"signed is of heatmap and overlay; {self.style} has its signs already"
            )
        if self.transparent and self.style != OVERLAY:
            raise InputError(f"transparent is of overlay; {self.style} has no photograph below it")
        for name, styles in _OF_STYLES.items():
            given = getattr(self, name)
            asked = given is not False and given != getattr(PictureOptions(), name)
            if asked and self.style not in styles:
                raise InputError(f"{name} is of {', '.join(styles)}; for {self.style} leave it out")
        if self.colours is None:
            return
        if self.style in (PULLBACK_STYLE, SEISMIC):
            raise InputError(f"{self.style} has its own colours; leave out colours")
        of = SIGNS if self.has_signs else STRENGTHS
        if self.colours not in of:
            kind = "has signs" if self.has_signs else "shows strengths"
            raise InputError(
                f"this picture {kind}, which {self.colours} does not show; choose one of "
                f"{', '.join(of)}"
            )

    @property
    def has_signs(self) -> bool:
        """Whether its values lie in [-1, 1], not in [0, 1]."""
        return self.signed or self.style in (SIGNED, PULLBACK_STYLE)

    @property
    def white_percentile(self) -> float:
        """`percentile`, or what stands for None."""
        if self.percentile is not None:
            return self.percentile
        return 99.5 if self.has_signs else 99

    def sigma(self, height: int, width: int) -> float:
        """The Gaussian's, in pixels of a map; 0 for none."""
        return (2 if self.smoothing is None else self.smoothing) / 100 * min(height, width)

    @property
    def channels(self) -> int:
        """Of the picture."""
        return 4 if self.transparent else 3


def _read(name: str, value: str) -> Any:
    """An option of a picture as text.

    Raises:
        InputError: it should be a number, or a yes or no.
    """
    if name == "colours":
        return value
    if name in ("signed", "transparent"):
        if value.lower() not in ("true", "false"):
            raise InputError(f"{name} of a picture is true or false, not {value!r}")
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        raise InputError(f"{name} of a picture is a number, not {value!r}") from None


def reach(sigma: float) -> int:
    """How many pixels away the Gaussian's last weight is: of four standard deviations."""
    return math.ceil(4 * sigma)


def rank_from_top(count: int, percentile: float) -> int:
    """k, so that of `count` numbers the k-th greatest is their percentile: 1 for 100."""
    return 1 + math.floor((count - 1) * share_above(percentile))


_PARTS = 500_000
"""Times `SORTED`, and a numerator more, it is within 32 bits, by which graphs count
(`onnxplain.export.drawn.scaled`)."""


def share_above(percentile: float) -> Fraction:
    """Which part of numbers is above their percentile: exactly where that has three decimals at
    most, else the nearest fraction of `_PARTS` parts at most."""
    return (1 - Fraction(str(percentile)) / 100).limit_denominator(_PARTS)


def thinning(height: int, width: int, percentile: float, channels: int = 1) -> tuple[int, int]:
    """The white point of a map: the s by which every s-th row and column is taken, and the k."""
    for step in range(1, STEPS + 1):
        count = channels * math.ceil(height / step) * math.ceil(width / step)
        if (rank := rank_from_top(count, percentile)) <= SORTED:
            break
    return step, rank


def line_width(height: int, width: int) -> int:
    """How many pixels wide the white line around a box is, and the black one around that."""
    return max(1, min(height, width) // 256)
