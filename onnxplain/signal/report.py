"""A study as a single, self-contained web page."""

from __future__ import annotations

import base64
import hashlib
import itertools
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.signals import RECONSTRUCTION
from onnxplain.files import replacing
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join
from onnxplain.runtime.pictures.render import signed_image
from onnxplain.signal import order as ordering
from onnxplain.signal import plots
from onnxplain.signal.compiled import open_graph
from onnxplain.signal.data import open_data
from onnxplain.signal.results import Results
from onnxplain.signal.show import as_image
from onnxplain.signal.study import ORIGINALS, UNTUNED, Study
from onnxplain.version import __version__

_PAGE = Path(__file__).with_name("report.html")
_EXAMPLES = 6

_ROW = Template(
    '<tr><th scope="row">$name</th><td>$parameters</td><td>$original</td><td>$own</td>'
    "<td>$kept</td><td>$untuned</td><td>$information</td><td>$error</td><td>$colours</td></tr>"
)
_HEAD = Template('<th scope="col">$name</th>')
_LINE = Template('<tr><th scope="row">$name</th>$cells</tr>')
_CELL = Template(
    '<td class="cell"><svg aria-hidden="true"><rect width="100%" height="100%" '
    'fill="$colour"/></svg><b>$accuracy</b><span>$difference</span><i>$verdict</i></td>'
)
_PLOT = Template('<img src="$uri" alt="$what">')
_EXAMPLE = Template("<tr>$cells</tr>")
_PICTURE = Template('<td><img class="pixels" src="$uri" alt="$what"></td>')
_SKIPPED = Template("<p>$count pictures could not be read and were skipped: $names.</p>")


def write_report(study: Study, results: Results, folder: Path, provider: str, path: Path) -> None:
    """Write the page; the example pictures come from the study's graphs.

    Args:
        study: what `run_study` was given.
        results: what it returned.
        folder: where it worked.
        provider: what runs the graphs.
        path: the .html file, replaced completely or not at all.

    Raises:
        InputError: the path cannot be written.
        BackendError: the runtime failed.
    """
    template = _PAGE.read_text(encoding="utf-8")
    style = template.partition("<style>")[2].partition("</style>")[0]
    page = fill(
        Template(template),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        facts=_facts(study, results),
        verdict=results.order.verdict[:1].upper() + results.order.verdict[1:],
        stability=f"{results.order.stability:.0%}",
        samples=ordering.SAMPLES,
        tolerance=f"{100 * ordering.TOLERANCE:g}",
        confidence=f"{ordering.CONFIDENCE:.0%}",
        order=_plot(plots.order_graph(results), "The order of the classifiers by their signals"),
        by_accuracy=_ranking(results.names, results.original),
        by_size=_ranking(results.names, results.parameters),
        by_information=_ranking(results.names, [results.information[n][2] for n in results.names]),
        rows=join(_rows(results)),
        heads=join([fill(_HEAD, name=name) for name in (*results.names, UNTUNED, ORIGINALS)]),
        matrix=join(_matrix(results)),
        information=_plot(plots.information(results), "Normalised mutual information by signal"),
        bins=results.bins,
        colours=_plot(plots.colour_histograms(results), "Histograms of pixel values by signal"),
        spectra=_plot(plots.spectra(results), "Power by spatial frequency and signal"),
        example_heads=join([fill(_HEAD, name=n) for n in _example_names(results)]),
        examples=join(_examples(study, results, folder, provider)),
        skipped=_skipped(results),
    )
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="replace")


def _facts(study: Study, results: Results) -> str:
    settings = study.settings
    start = f"from {Path(settings.start).name}, " if settings.start else ""
    return " · ".join(
        [
            f"data {settings.data}",
            f"{results.pictures} pictures measured",
            f"{settings.size} × {settings.size} pixels",
            f"{settings.autoencoder}, {start}{settings.epochs} epochs of reconstruction, then "
            f"{settings.tune_epochs} of tuning",
            f"seed {settings.seed}",
            f"onnxplain {__version__}",
        ]
    )


def _ranking(names: list[str], values: Any) -> str:
    """From the least to the greatest."""
    ranked = sorted(zip(map(float, values), names, strict=True))
    text = ranked[0][1]
    for (before, _), (value, name) in itertools.pairwise(ranked):
        text += f" {'=' if value == before else '<'} {name}"
    return text


def _rows(results: Results) -> list[Markup]:
    own = np.diag(results.matrix)
    return [
        fill(
            _ROW,
            name=name,
            parameters=f"{results.parameters[i]:,}",
            original=f"{results.original[i]:.1%}",
            own=f"{own[i]:.1%}",
            kept="–" if kept is None else f"{kept:.1%}",
            untuned=f"{results.untuned[i]:.1%}",
            information=f"{results.information[name][2]:.3f}",
            error=f"{results.error[name]:.3f}",
            colours=f"{results.colours[name]:.4f}",
        )
        for i, (name, kept) in enumerate(zip(results.names, results.kept, strict=True))
    ]


def _matrix(results: Results) -> list[Markup]:
    least = min(results.matrix.min(), results.untuned.min(), results.original.min())
    lines = []
    for i, name in enumerate(results.names):
        cells = [_cell(results, i, j, least) for j in range(len(results.names))]
        for accuracy in (results.untuned[i], results.original[i]):
            cells.append(_bare_cell(accuracy, least))
        lines.append(fill(_LINE, name=name, cells=join(cells)))
    return lines


def _cell(results: Results, i: int, j: int, least: float) -> Markup:
    if i == j:
        return _bare_cell(results.matrix[i, j], least, "its own signal")
    order = results.order
    low, high = 100 * order.low[i, j], 100 * order.high[i, j]
    if order.serves[i, j]:
        verdict = f"is served, {order.confidence[i, j]:.1%}"
    elif order.undecided[i, j]:
        verdict = f"undecided, {order.confidence[i, j]:.1%}"
    else:
        verdict = f"is not served, {1 - order.confidence[i, j]:.1%}"
    difference = f"{100 * order.difference[i, j]:+.1f} ({low:+.1f} … {high:+.1f})"
    return _bare_cell(results.matrix[i, j], least, difference, verdict)


def _bare_cell(accuracy: float, least: float, difference: str = "", verdict: str = "") -> Markup:
    strength = (accuracy - least) / max(1 - least, 1e-9)
    channels = [round(255 + strength * (c - 255)) for c in (0xF4, 0xA2, 0x7F)]
    return fill(
        _CELL,
        colour="#" + "".join(f"{c:02x}" for c in channels),
        accuracy=f"{accuracy:.1%}",
        difference=difference,
        verdict=verdict,
    )


def _plot(uri: str, what: str) -> Markup:
    return fill(_PLOT, uri=uri, what=what)


def _example_names(results: Results) -> list[str]:
    both = [[name, f"{name}: difference"] for name in (UNTUNED, *results.names)]
    return ["original", *(title for pair in both for title in pair)]


def _examples(study: Study, results: Results, folder: Path, provider: str) -> list[Markup]:
    """Rows of pictures from all over the data: the original, each signal and its difference."""
    settings = study.settings
    pictures = open_data(settings.data, settings.size, settings.seed).test
    chosen = np.linspace(0, len(pictures) - 1, min(_EXAMPLES, len(pictures))).astype(int)
    found = pictures.chosen(chosen.tolist())
    files = {UNTUNED: "untuned"} | {name: name for name in results.names}
    signals = {
        name: open_graph(folder / "graphs" / f"signal-{file}.onnx", provider).run(found)
        for name, file in files.items()
    }
    rows = []
    for k, original in enumerate(found):
        cells = [_picture(original, "original")]
        for name, outputs in signals.items():
            seen = outputs[RECONSTRUCTION][k].clip(0, 1)
            cells.append(_picture(seen, f"signal of {name}"))
            uri = data_uri(signed_image(seen - original))
            cells.append(fill(_PICTURE, uri=uri, what=f"difference, signal of {name}"))
        rows.append(fill(_EXAMPLE, cells=join(cells)))
    return rows


def _picture(pixels: NDArray[Any], what: str) -> Markup:
    return fill(_PICTURE, uri=data_uri(as_image(pixels)), what=what)


def _skipped(results: Results) -> Markup:
    if not results.skipped:
        return Markup("")
    return fill(_SKIPPED, count=len(results.skipped), names=", ".join(results.skipped))
