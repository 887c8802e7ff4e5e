"""The HTML of a comparison of two files: one page that needs nothing but itself."""

from __future__ import annotations

import secrets
from pathlib import Path
from string import Template

from PIL import Image

from onnxplain.contract.picture import OVERLAY, PULLBACK_STYLE, PictureOptions
from onnxplain.errors import InputError
from onnxplain.evaluation.alike import MEASURES
from onnxplain.evaluation.drift import Drift, ImageDrift, explained
from onnxplain.files import replacing
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join, now
from onnxplain.version import __version__

SHOWN = 12
"""The images furthest below their thresholds that the page shows."""

_PAGE = Path(__file__).with_name("drift.html")
_LOOKS = {
    "pullback": PictureOptions(style=PULLBACK_STYLE),
    "heatmap": PictureOptions(style=OVERLAY),
}
_MEASURE = Template(
    '<tr><th scope="row" title="$help">$name</th><td>$threshold</td><td>$least</td><td>$low</td>'
    "<td>$median</td><td>$below</td></tr>"
)
_IMAGE = Template("""\
<section>
<h2 title="$path">$name<span>$target</span></h2>
<div class="pictures">
$pictures
</div>
$said
</section>""")
_FIGURE = Template(
    '<figure><img src="$uri" alt="$what of $name" width="$width" height="$height">'
    "<figcaption>$what</figcaption></figure>"
)
_VALUES = Template("<ul>$values</ul>")
_VALUE = Template('<li class="$status">$name $value</li>')
_PROBLEM = Template('<p class="below">$problem</p>')
_UNREADABLE = Template("<section><h2>Not read</h2>$lines</section>")
_LINE = Template("<p>$path: $problem</p>")


def write_page(drift: Drift, new: Explainer, reference: Explainer, path: Path) -> None:
    """Write what was measured, and the worst images explained by both files.

    Args:
        drift: what `compare` returned of these two.
        path: the .html file, replaced as a whole or not at all.

    Raises:
        InputError: the path cannot be written, or an image is no longer there.
        BackendError: a runtime failed.
    """
    names = [one.path.name if one.path else one.metadata.source for one in (new, reference)]
    page = fill(
        Template(_PAGE.read_text(encoding="utf-8")),
        nonce=secrets.token_urlsafe(16),
        new=names[0],
        reference=names[1],
        facts=" · ".join(
            [
                f"reference: {_described(reference)}",
                f"new: {_described(new)}",
                now(),
                f"onnxplain {__version__}",
            ]
        ),
        status="passed" if drift.passed else "failed",
        verdict=drift.verdict,
        measures=join([_measure(drift, name) for name in drift.thresholds]),
        images=join([_image(image, drift, new, reference) for image in drift.worst[:SHOWN]]),
        unreadable=_unreadable(drift),
    )
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace")


def _described(explainer: Explainer) -> str:
    backend, metadata = explainer.backend, explainer.metadata
    return f"{metadata.source}, {metadata.described_method}, {backend.name} in {backend.precision}"


def _measure(drift: Drift, name: str) -> Markup:
    least, low, median = (drift.quantile(name, at) for at in (0, 0.1, 0.5))
    return fill(
        _MEASURE,
        name=name,
        help=MEASURES[name].help,
        threshold=f"{drift.thresholds[name]:g}",
        least=f"{least:.3f}",
        low=f"{low:.3f}",
        median=f"{median:.3f}",
        below=sum(name in image.below for image in drift.images),
    )


def _image(image: ImageDrift, drift: Drift, new: Explainer, reference: Explainer) -> Markup:
    right, found = explained(new, reference, load_image(image.path), image.asked)
    name = image.path.name
    figures = []
    if not isinstance(right, InputError):
        figures.append(_figure(Image.fromarray(right.photographs[0]), "photograph", name))
    for title, explanation in (("reference", right), ("new", found)):
        if not isinstance(explanation, InputError):
            figures += _figures(explanation, title, name)
    said = fill(_PROBLEM, problem=image.problem)
    if not image.problem:
        said = fill(
            _VALUES,
            values=join(
                fill(
                    _VALUE,
                    status="below" if measure in image.below else "",
                    name=measure,
                    value=f"{value:.3f}",
                )
                for measure, value in image.measured.items()
            ),
        )
    return fill(
        _IMAGE, path=image.path, name=name, target=image.target, pictures=join(figures), said=said
    )


def _figures(explanation: Explanation, title: str, name: str) -> list[Markup]:
    (row,) = explanation.rows()
    canvas = Canvas.of_network(row.photograph)
    return [
        _figure(row.drawn(0, look, canvas)[0], f"{title}’s {what}", name)
        for what, look in _LOOKS.items()
    ]


def _figure(picture: Image.Image, what: str, name: str) -> Markup:
    width, height = picture.size
    return fill(_FIGURE, uri=data_uri(picture), what=what, name=name, width=width, height=height)


def _unreadable(drift: Drift) -> Markup:
    if not drift.unreadable:
        return Markup("")
    lines = [fill(_LINE, path=path, problem=problem) for path, problem in drift.unreadable]
    return fill(_UNREADABLE, lines=join(lines))
