"""The HTML of an evaluation: one page that needs nothing but itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.picture import OVERLAY, PictureOptions
from onnxplain.evaluation.images import Sample
from onnxplain.evaluation.metrics import LOWER, Metric
from onnxplain.evaluation.result import Evaluation
from onnxplain.evaluation.statistics import Estimate
from onnxplain.evaluation.subject import Subject
from onnxplain.files import replacing
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.figures import Row
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join, now
from onnxplain.version import __version__

SHOWN = 4
"""The images of each graph that are shown as its best, and as its worst."""

_PAGE = Path(__file__).with_name("evaluation.html")
_LOOK = PictureOptions(style=OVERLAY)
_COLUMN = Template("<th>$name</th>")
_ROW = Template('<tr><th scope="row" title="$asks">$name $arrow</th>$cells</tr>')
_CELL = Template('<td class="$status">$mean<span>$interval</span></td>')
_PLOT = Template("""\
<div>
<h3>$name $arrow</h3>
<p>$asks</p>
<svg viewBox="0 0 340 $height" role="img" aria-label="$name of each graph">
<line x1="130" y1="$axis" x2="330" y2="$axis"/>
$marks
<text x="130" y="$below">$least</text><text x="330" y="$below" text-anchor="end">$most</text>
</svg>
</div>""")
_MARK = Template("""\
<g class="$status">
<text x="122" y="$base" text-anchor="end">$name</text>
<line class="interval" x1="$low" y1="$y" x2="$high" y2="$y"/><circle cx="$mean" cy="$y" r="4"/>
</g>""")
_GRAPH = Template("""\
<section>
<h2>$name<span>$method</span></h2>
<p>Ranked by the mean of each image’s ranks over the metrics.</p>
<h3>Best</h3>
<div class="pictures">
$best
</div>
<h3>Worst</h3>
<div class="pictures">
$worst
</div>
</section>""")
_FIGURE = Template(
    '<figure><div><img src="$photograph" alt="$name"><img src="$why" alt="$name, explained"></div>'
    "<figcaption><b>$name</b>$target<br>$scores</figcaption></figure>"
)
_PROBLEMS = Template('<section class="problems"><h2>No score</h2><ul>$lines</ul></section>')
_LINE = Template("<li>$line</li>")

Rows = Callable[[int, int], Row]
"""What pictures of a graph's explanation of an image are drawn from, by their places."""


def pictures_of(subjects: Sequence[Subject], samples: Sequence[Sample]) -> Rows:
    """What pictures of a graph and an image are drawn from."""

    def row(graph: int, image: int) -> Row:
        sample = samples[image]
        return subjects[graph].explainer(sample.path, sample.target).rows()[0]

    return row


def write_page(evaluation: Evaluation, row: Rows, path: Path) -> None:
    """Write means, plots, and each graph's best and worst images.

    Args:
        row: of a graph and an image.
        path: the .html file, replaced as a whole or not at all.

    Raises:
        InputError: the path cannot be written, or an image is no longer there.
        BackendError: a runtime failed.
    """
    facts = [
        f"{len(evaluation.images)} images",
        f"{len(evaluation.graphs)} explain graphs",
        f"seed {evaluation.seed}",
        now(),
        f"onnxplain {__version__}",
    ]
    page = fill(
        Template(_PAGE.read_text(encoding="utf-8")),
        nonce=secrets.token_urlsafe(16),
        facts=" · ".join(facts),
        columns=join([fill(_COLUMN, name=name) for name in evaluation.graphs]),
        rows=join([_row(evaluation, metric) for metric in evaluation.metrics]),
        plots=join([_plot(evaluation, metric) for metric in evaluation.metrics]),
        graphs=join([_graph(evaluation, i, row) for i in range(len(evaluation.graphs))]),
        problems=_problems(evaluation),
    )
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace")


def _row(evaluation: Evaluation, metric: Metric) -> Markup:
    best = evaluation.best(metric.name)
    cells = []
    for i, mean in enumerate(evaluation.estimates(metric.name)):
        status = "best" if i == best else "tied" if evaluation.tied(metric.name)[i] else ""
        interval = f"{mean.low:.3g} … {mean.high:.3g}" if mean.count else ""
        if evaluation.uneven(metric.name):
            interval = f"{interval}, n = {mean.count}".removeprefix(", ")
        shown = f"{mean.mean:.3g}" if mean.count else "–"
        cells.append(fill(_CELL, status=status, mean=shown, interval=interval))
    return fill(_ROW, name=metric.name, asks=metric.asks, arrow=metric.arrow, cells=join(cells))


def _plot(evaluation: Evaluation, metric: Metric) -> Markup:
    """A mark for each graph on one axis."""
    means, best = evaluation.estimates(metric.name), evaluation.best(metric.name)
    there = [mean for mean in means if mean.count]
    least = min((mean.low for mean in there), default=0.0)
    most = max((mean.high for mean in there), default=0.0)

    def at(value: float) -> str:
        share = (value - least) / (most - least) if most > least else 0.5
        return f"{130 + 200 * share:.1f}"

    def mark(i: int, name: str, mean: Estimate) -> Markup:
        y, status = 14 + 22 * i, "best" if i == best else ""
        name = name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
        placed = {"low": at(mean.low), "high": at(mean.high), "mean": at(mean.mean)}
        return fill(_MARK, status=status, name=name, y=y, base=y + 4, **placed)

    named = zip(evaluation.graphs, means, strict=True)
    marks = [mark(i, name, mean) for i, (name, mean) in enumerate(named) if mean.count]
    axis = 22 * len(means) + 8
    return fill(
        _PLOT,
        name=metric.name,
        asks=metric.asks,
        arrow=metric.arrow,
        height=axis + 20,
        axis=axis,
        below=axis + 16,
        marks=join(marks),
        least=f"{least:.3g}",
        most=f"{most:.3g}",
    )


def _graph(evaluation: Evaluation, i: int, row: Rows) -> Markup:
    order = ranked(evaluation, i)
    count = min(SHOWN, (len(order) + 1) // 2)

    def figures(images: Sequence[int]) -> Markup:
        return join([_figure(evaluation, i, image, row(i, image)) for image in images])

    method = next(
        score.method for score in evaluation.scores if score.graph == evaluation.graphs[i]
    )
    return fill(
        _GRAPH,
        name=evaluation.graphs[i],
        method=method,
        best=figures(order[:count]),
        worst=figures(order[::-1][: len(order) - count][:count]),
    )


def ranked(evaluation: Evaluation, graph: int) -> list[int]:
    """The images that have a score by a graph, the best first: by the mean of their ranks over the
    metrics."""
    signs = {metric.name: 1 if metric.better == LOWER else -1 for metric in evaluation.metrics}
    ranks = np.array([_ranks(sign * evaluation.of(n)[graph]) for n, sign in signs.items()])
    count = np.isfinite(ranks).sum(axis=0)
    mean = np.nansum(ranks, axis=0) / np.maximum(count, 1)
    return [image for image in np.argsort(mean, kind="stable").tolist() if count[image]]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0, the least, to 1, the greatest; NaN of NaN."""
    ranks = np.full(len(values), np.nan)
    there = np.flatnonzero(np.isfinite(values))
    order = there[np.argsort(values[there], kind="stable")]
    ranks[order] = np.linspace(0, 1, len(order)) if len(order) > 1 else 0.5
    return ranks


def _figure(evaluation: Evaluation, graph: int, image: int, row: Row) -> Markup:
    canvas = Canvas.of_network(row.photograph)
    scores = [
        f"{metric.name} {evaluation.of(metric.name)[graph, image]:.2g}"
        for metric in evaluation.metrics
        if np.isfinite(evaluation.of(metric.name)[graph, image])
    ]
    return fill(
        _FIGURE,
        name=evaluation.images[image],
        target=row.targets[0][0],
        photograph=data_uri(row.shown(canvas)),
        why=data_uri(row.drawn(0, _LOOK, canvas)[0]),
        scores=Markup("<br>".join(scores)),
    )


def _problems(evaluation: Evaluation) -> Markup:
    lines = evaluation.problems_said()
    if not lines:
        return Markup("")
    return fill(_PROBLEMS, lines=join([fill(_LINE, line=line) for line in lines]))
