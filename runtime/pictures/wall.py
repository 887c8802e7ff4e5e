"""The HTML of a gallery: photographs by networks by methods, in the style of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.runtime.pictures import page
from onnxplain.runtime.pictures.figures import Row
from onnxplain.runtime.pictures.kinds import READINGS, drawn
from onnxplain.runtime.pictures.markup import Markup, fill, join

_MEANING = (
    "Each photograph has a row for each network: what is explained, and a picture by "
    "each method, with how it is read. Each is scaled by itself: strengths are not to be compared."
)
_NETWORK = Template("""\
<section>
<h3><b data-find>$network</b><span>$target</span></h3>
<div class="pictures">
$figures
</div>
</section>""")
_FIGURE = Template(
    "<figure>$picture<figcaption><b data-find>$method</b>$reading</figcaption></figure>"
)
_REFUSED = Template("<figure><figcaption><b data-find>$method</b>$reason</figcaption></figure>")


def frame(networks: Sequence[str], facts: Sequence[str]) -> tuple[Markup, Markup]:
    """What comes before the articles, and what after."""
    return page.frame(" and ".join(networks), facts, _MEANING)


def figure(
    method: str, kind: str, photograph: NDArray[np.uint8], pullback: NDArray[Any], what: str
) -> Markup:
    """A picture by one method.

    Args:
        method: its name, with its parameters.
        kind: that of what it gives.
        photograph, pullback: as for `onnxplain.runtime.pictures.kinds.drawn`.
        what: it shows, for who cannot see it.
    """
    shown = page.picture(drawn(kind, photograph, pullback), f"{method} of {what}")
    return fill(_FIGURE, picture=shown, method=method, reading=READINGS[kind][0])


def refused(method: str, reason: object) -> Markup:
    """In its place, why there is none."""
    return fill(_REFUSED, method=method, reason=reason)


def section(network: str, row: Row, figures: Sequence[Markup]) -> Markup:
    """A network's row of pictures for one photograph."""
    target, value = row.targets[0]
    said = f"{target} {row.number(value)}"
    return fill(_NETWORK, network=network, target=said, figures=join(figures))


def article(name: str, file: Path, row: Row, sections: Sequence[Markup]) -> Markup:
    """A photograph's part of the page, with the classes that the first network sees in it."""
    return page.entry(name, file, row, join(sections))
