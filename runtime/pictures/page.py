"""The HTML of a report: one web page that needs nothing but itself."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.picture import PULLBACK_STYLE, PictureOptions
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.figures import Row
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join
from onnxplain.runtime.pictures.render import signed_image

_PULLBACK = PictureOptions(style=PULLBACK_STYLE)
_PAGE = Path(__file__).with_name("page.html")

_MEANING = Template(
    "The <b>pullback</b> is the change of the photograph’s pixels that the network would read as "
    "more of $what (grey: none), the <b>heatmap</b> shows where that change is strong, the "
    "<b>accentuation</b> is the photograph after $steps along it, and the <b>difference</b> is "
    "what they added; beside the name are $numbers before and after."
)
_NO_OTHERS = Markup("")
_GAIN = Markup(
    '<button type="button" data-sort="gain" title="the class’s probability after accentuation less '
    'that before" aria-pressed="false">Gain</button>'
)
_IMAGE = Template("""\
<article data-name="$name" data-class="$predicted" data-confidence="$confidence"$others>
<div class="seen">
<h2 title="$path" data-find>$name</h2>
$photograph
<ol>
$predictions
</ol>
</div>
<div class="why">
$targets
</div>
</article>""")
_FAILURE = Template("""\
<article class="failed" data-name="$name">
<h2 title="$path" data-find>$name</h2>
<p>$reason</p>
</article>""")
_PREDICTION = Template("""\
<li><svg aria-hidden="true"><rect width="$probability" height="100%"/></svg>\
<span data-find>$name</span><span>$probability</span></li>""")
_TARGET = Template("""\
<section>
<h3><b data-find>$target</b><span>$before → <b>$after</b></span></h3>
<div class="pictures">
<figure>$pullback<figcaption><b>Pullback</b>the change towards it</figcaption></figure>
<figure>$heatmap<figcaption><b>Heatmap</b>where it is strong</figcaption></figure>
<figure>
<div class="slider">
$start
$end
<span>before</span><span>after</span>
<input type="range" value="50" autocomplete="off" aria-label="Before and after, $name, $target">
</div>
<figcaption><b>Accentuation</b>slide to compare</figcaption>
</figure>
<figure>$difference<figcaption><b>Difference</b>what was added</figcaption></figure>
</div>
</section>""")
_PICTURE = Template('<img src="$uri" alt="$what" width="$width" height="$height" decoding="async">')


def report_frame(
    source: str, facts: Sequence[str], steps: int, of_class: bool = True
) -> tuple[Markup, Markup]:
    """`frame` of a report.

    Args:
        steps: of the accentuations.
        of_class: whether classes are explained.
    """
    meaning = fill(
        _MEANING,
        steps="one step" if steps == 1 else f"{steps} steps",
        what="the class" if of_class else "what is explained",
        numbers="its probabilities" if of_class else "the numbers explained,",
    )
    return frame(source, facts, meaning, _GAIN)


def frame(
    source: str, facts: Sequence[str], meaning: str, sorts: Markup = _NO_OTHERS
) -> tuple[Markup, Markup]:
    """What comes before the articles, and what after.

    Args:
        source: what is explained, the page's title.
        facts: what else its head says.
        meaning: what the pictures show.
        sorts: buttons by which articles can be sorted, besides the usual.
    """
    page = fill(
        Template(_PAGE.read_text(encoding="utf-8")),
        nonce=secrets.token_urlsafe(16),
        source=source,
        facts=" · ".join(facts),
        meaning=meaning,
        sorts=sorts,
        images=Markup("\0"),
    )
    before, _, after = page.partition("\0\n")
    return Markup(before), Markup(after)


def failure(name: str, file: Path, reason: object) -> Markup:
    """The article of an image that cannot be shown."""
    return fill(_FAILURE, name=name, path=file, reason=reason)


def article(
    name: str,
    file: Path,
    row: Row,
    start: NDArray[Any],
    end: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    look: PictureOptions,
) -> Markup:
    """One image's part of the page.

    Args:
        name: as the image is called on the page.
        file: where it lies.
        row: its explanation for K targets.
        start, end: of the accentuation of each, pixels in [-1, 1], [K,C,H,W].
        before, after: the targets' probabilities there, or the objective, [K].
        look: of its maps.
    """
    canvas = Canvas.of_network(row.photograph)
    sections = []
    for k, (target, _) in enumerate(row.targets):
        what = f"of {name} for {target}"
        sections.append(
            fill(
                _TARGET,
                name=name,
                target=target,
                before=row.number(before[k]),
                after=row.number(after[k]),
                pullback=picture(row.drawn(k, _PULLBACK, canvas)[0], f"pullback {what}"),
                heatmap=picture(row.drawn(k, look, canvas)[0], f"heatmap {what}"),
                start=picture(_pixels(start[k]), f"photograph {name}"),
                end=picture(_pixels(end[k]), f"accentuation {what}"),
                difference=picture(signed_image(end[k] - start[k]), f"difference {what}"),
            )
        )
    return entry(name, file, row, join(sections), {"gain": f"{after[0] - before[0]:.6f}"})


def entry(
    name: str,
    file: Path,
    row: Row,
    sections: Markup,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Markup:
    """An image's article: the photograph with the likeliest classes, and what explains them.

    Args:
        name, file: as for `article`.
        row: of which the photograph and the classes are shown.
        others: by what else it can be sorted.
    """
    predictions = [
        fill(_PREDICTION, name=label, probability=f"{p:.1%}") for label, p in row.predictions
    ]
    first, value = (row.predictions or row.targets)[0]
    data = [fill(Template(' data-$key="$value"'), key=k, value=v) for k, v in others.items()]
    shown = row.shown(Canvas.of_network(row.photograph))
    return fill(
        _IMAGE,
        name=name,
        path=file,
        predicted=first,
        confidence=f"{value:.6f}",
        others=Markup("".join(data)),
        photograph=picture(shown, f"photograph {name}"),
        predictions=join(predictions),
        targets=sections,
    )


def picture(shown: Image.Image, what: str) -> Markup:
    """A picture on the page; `what` it is, for who cannot see it."""
    width, height = shown.size
    return fill(_PICTURE, uri=data_uri(shown), what=what, width=width, height=height)


def _pixels(x: NDArray[Any]) -> Image.Image:
    """Pixels [C,H,W] in [-1, 1], C = 1 or 3, as a picture."""
    pixels = np.rint(127.5 + 127.5 * x).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
