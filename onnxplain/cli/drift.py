"""What `onnxplain evaluate --against` says: whether two files still explain alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from onnxplain.cli.console import complain, out, say, shown
from onnxplain.cli.progress import remaining_bar
from onnxplain.errors import InputError
from onnxplain.files import make_folder, replacing

if TYPE_CHECKING:
    from onnxplain.evaluation.drift import Drift

SHARE = "drifted"
"""What `--threshold` calls the share of the images that may have drifted."""


def report_drift(
    models: Sequence[Path],
    against: Path,
    images: Sequence[str],
    labels: Path | None,
    thresholds: Sequence[str],
    folder: Path,
    provider: str,
    precision: str,
) -> None:
    """Compare two files on images, print the table, and write `drift.json` and `drift.html`.

    Args:
        models: the new file alone.
        against: the reference, which ONNX Runtime runs on the CPU in float32.
        labels: a CSV file of classes; of an image without one it is what the reference predicts.
        thresholds: as `cosine=0.9`; `drifted=0.1` is the share of the images that may fall below.
        folder: where they are written.

    Raises:
        typer.Exit: with 1 where they have drifted apart, or an image cannot be read.
        InputError, BackendError: as `onnxplain.load` and `onnxplain.evaluation.drift.compare`; a
            threshold that is none; several new files; a folder that cannot be written.
    """
    from onnxplain.evaluation.drift import ALLOWED, compare
    from onnxplain.evaluation.drift_page import write_page
    from onnxplain.evaluation.images import labels_of
    from onnxplain.evaluation.labels import read_labels
    from onnxplain.runtime import find_images, load

    if len(models) != 1:
        raise InputError("--against compares one file with another: give one besides")
    given = _read(thresholds)
    allowed = given.pop(SHARE, ALLOWED)
    paths = find_images(images)
    known = None if labels is None else read_labels(labels)
    make_folder(folder)
    reference, new = load(against, "cpu"), load(models[0], provider, precision)
    targets = None if known is None else labels_of(paths, known, reference.labels)
    with remaining_bar() as progress:
        task = progress.add_task("comparing", total=len(paths))
        drift = compare(
            new,
            reference,
            paths,
            targets=targets,
            thresholds=given,
            allowed=allowed,
            progress=lambda done: progress.update(task, completed=done),
        )
    out.print(_table(drift))
    with replacing(folder / "drift.json") as beside:
        beside.write_text(json.dumps(drift.record(), indent=1, allow_nan=False) + "\n")
    write_page(drift, new, reference, folder / "drift.html")
    for path, problem in drift.unreadable:
        complain(f"{path}: {problem}")
    for image in drift.images:
        if image.problem:
            complain(f"{image.path}: {image.problem}")
    say(f"{drift.verdict}; {folder / 'drift.html'}")
    if not drift.passed or drift.unreadable:
        raise typer.Exit(1)


def _read(thresholds: Sequence[str]) -> dict[str, float]:
    """
    Raises:
        InputError: one is not a name and a number.
    """
    found = {}
    for text in thresholds:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise InputError(
                f"a threshold is a name and a number, ssim=0.7, not {text!r}"
            ) from None
    return found


def _table(drift: Drift) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in ("threshold", "least", "10 %", "median", "images below"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, threshold in drift.thresholds.items():
        below = sum(name in image.below for image in drift.images)
        figures = [f"{drift.quantile(name, at):.3f}" for at in (0, 0.1, 0.5)]
        table.add_row(
            shown(name),
            f"{threshold:g}",
            *figures,
            str(below),
            style="red" if below > drift.allowed * len(drift.images) else None,
        )
    return table
