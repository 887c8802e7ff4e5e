"""How an explanation shows itself in a notebook: never more than a screen or two of it."""

from __future__ import annotations

import io
from string import Template
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from onnxplain.runtime.pictures.figures import draw
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join
from onnxplain.runtime.pictures.render import overlay, signed_image

if TYPE_CHECKING:
    from onnxplain.runtime.explanation import Explanation

_IMAGES, _TARGETS, _SIDE = 8, 3, 224

# Notebooks drop <style> from what they do not trust, so what matters is in attributes.
_TABLE = Template("""<table>
<thead><tr><th>photograph</th><th>predictions</th>$headings</tr></thead>
<tbody>
$rows
</tbody>
</table>
$more""")
_HEADINGS = Markup("<th>pullback</th><th>heatmap</th>")
_ROW = Template("""<tr>
<td style="vertical-align: top">$photograph</td>
<td style="vertical-align: top; text-align: left; white-space: nowrap">$predictions</td>
$pictures
</tr>""")
_PREDICTION = Template("<div>$probability $name</div>")
_PICTURE = Template('<img src="$uri" alt="$what" title="$what" width="160">')
_PAIR = Template("""\
<td style="vertical-align: top; text-align: center">$pullback<div>$target</div></td>
<td style="vertical-align: top; text-align: center">$heatmap<div>$probability</div></td>""")
_MORE = Template("<p>$counts not shown</p>")


def table(explanation: Explanation) -> str:
    """Photographs, their likeliest classes, pullbacks and heatmaps, as an HTML table.

    At most 8 images, 3 targets of each and 224 pixels a side; says how many more there are.
    """
    shown = _first(explanation)
    height, width = shown.photographs.shape[1:3]
    pullbacks = shown.pullback.reshape(len(shown), -1, *shown.pullback.shape[-3:])
    heatmaps = shown.heatmap().reshape(len(shown), -1, height, width)
    names = np.array(shown.names).reshape(len(shown), -1)
    probabilities = shown.target_probabilities.reshape(len(shown), -1)
    rows = []
    for i, ranked in enumerate(shown.labels()):
        photograph = shown.photographs[i]
        pairs = [
            fill(
                _PAIR,
                pullback=_picture(signed_image(pullbacks[i, k]), f"pullback for {name}"),
                heatmap=_picture(overlay(photograph, heatmaps[i, k]), f"heatmap for {name}"),
                target=name,
                probability=f"{probabilities[i, k]:.1%}",
            )
            for k, name in enumerate(names[i])
        ]
        predictions = [fill(_PREDICTION, probability=_aligned(p), name=name) for name, p in ranked]
        rows.append(
            fill(
                _ROW,
                photograph=_picture(Image.fromarray(photograph), "photograph"),
                predictions=join(predictions),
                pictures=join(pairs),
            )
        )
    headings = Markup(_HEADINGS * pullbacks.shape[1])
    return fill(_TABLE, headings=headings, rows=join(rows), more=_more(explanation, shown))


def png(explanation: Explanation) -> bytes:
    """The `grid` of as much as `table` shows, as a PNG file."""
    encoded = io.BytesIO()
    draw(_first(explanation), "grid").save(encoded, "PNG")
    return encoded.getvalue()


def _first(explanation: Explanation) -> Explanation:
    part = (slice(_IMAGES), slice(_TARGETS))[: explanation.targets.ndim]
    return type(explanation)(
        explanation.logits[:_IMAGES],
        explanation.pullback[part],
        explanation.targets[part],
        explanation.photographs[:_IMAGES],
        explanation.class_names,
        explanation.activation,
    )


def _more(explanation: Explanation, shown: Explanation) -> Markup:
    kinds = {
        "image": len(explanation) - len(shown),
        "target": sum(explanation.targets.shape[1:]) - sum(shown.targets.shape[1:]),
    }
    counts = [f"{n} more {kind}{'s' * (n > 1)}" for kind, n in kinds.items() if n > 0]
    return fill(_MORE, counts=" and ".join(counts)) if counts else Markup()


def _aligned(probability: float) -> str:
    """As wide as "100.0%", with spaces as wide as a digit."""
    return f"{probability:6.1%}".replace(" ", "\N{FIGURE SPACE}")


def _picture(picture: Image.Image, what: str) -> Markup:
    picture.thumbnail((_SIDE, _SIDE))
    return fill(_PICTURE, uri=data_uri(picture), what=what)
