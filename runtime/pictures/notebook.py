"""How an explanation shows itself in a notebook: never more than a screen or two."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import Template

from PIL import Image

from onnxplain.contract.picture import GRID, OVERLAY, PULLBACK_STYLE, PictureOptions
from onnxplain.runtime.pictures.figures import Row, draw
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join

IMAGES = 8
"""The most images that a notebook shows."""

_TARGETS, _SIDE = 3, 224
_PULLBACK, _OVERLAY = (PictureOptions(style=s, longest=_SIDE) for s in (PULLBACK_STYLE, OVERLAY))

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


def table(rows: Sequence[Row], images: int) -> str:
    """Photographs, their likeliest classes, pullbacks and heatmaps, as an HTML table.

    At most 3 targets of an image and 224 pixels a side; says how many more there are.

    Args:
        rows: the first of the images, `IMAGES` at most.
        images: how many there are in all.
    """
    shown = _first_targets(rows)
    counts = {"image": images - len(rows), "target": len(rows[0].targets) - len(shown[0].targets)}
    headings = Markup(_HEADINGS * len(shown[0].targets))
    return fill(_TABLE, headings=headings, rows=join(map(_row, shown)), more=_more(counts))


def png(rows: Sequence[Row]) -> bytes:
    """The `grid` of as much as `table` shows, as a PNG file."""
    encoded = io.BytesIO()
    draw(_first_targets(rows), PictureOptions(style=GRID)).save(encoded, "PNG")
    return encoded.getvalue()


def _first_targets(rows: Sequence[Row]) -> list[Row]:
    return [
        replace(
            row,
            pullbacks=row.pullbacks[:_TARGETS],
            targets=row.targets[:_TARGETS],
            boxes=None if row.boxes is None else row.boxes[:_TARGETS],
        )
        for row in rows
    ]


def _row(row: Row) -> Markup:
    canvas = row.canvas(_OVERLAY)
    pairs = [
        fill(
            _PAIR,
            pullback=_picture(row.drawn(k, _PULLBACK, canvas)[0], f"pullback for {name}"),
            heatmap=_picture(row.drawn(k, _OVERLAY, canvas)[0], f"heatmap for {name}"),
            target=name,
            probability=row.number(probability),
        )
        for k, (name, probability) in enumerate(row.targets)
    ]
    predictions = [
        fill(_PREDICTION, probability=_aligned(p), name=name) for name, p in row.predictions
    ]
    return fill(
        _ROW,
        photograph=_picture(row.shown(canvas), "photograph"),
        predictions=join(predictions),
        pictures=join(pairs),
    )


def _more(counts: Mapping[str, int]) -> Markup:
    """What is not shown, of each kind."""
    said = [f"{n} more {kind}{'s' * (n > 1)}" for kind, n in counts.items() if n > 0]
    return fill(_MORE, counts=" and ".join(said)) if said else Markup()


def _aligned(probability: float) -> str:
    """As wide as "100.0%", with spaces as wide as a digit."""
    return f"{probability:6.1%}".replace(" ", "\N{FIGURE SPACE}")


def _picture(picture: Image.Image, what: str) -> Markup:
    picture.thumbnail((_SIDE, _SIDE))
    return fill(_PICTURE, uri=data_uri(picture), what=what)
