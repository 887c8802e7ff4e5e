"""The command `onnxplain explain`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onnxplain.cli.app import (
    AtLeast,
    Images,
    Model,
    Precision,
    Provider,
    Targets,
    Temperature,
    as_target,
    command,
    err,
    out,
    progress_bar,
)
from onnxplain.errors import InputError

if TYPE_CHECKING:
    from onnxplain.runtime import Explainer

Folder = Annotated[
    Path, typer.Option("--out", "-o", help="Where pictures and predictions.jsonl go.")
]
_COMPARED = 8  # images that --precision auto looks at

Style = Annotated[str, typer.Option(help="grid, pullback, heatmap or overlay.")]


@command
def explain(
    model: Model,
    images: Images,
    folder: Folder = Path("explanations"),
    target: Targets = None,
    style: Style = "grid",
    temperature: Temperature = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
    at_least: AtLeast = None,
) -> None:
    """Explain images: one picture each, and a JSON line each in predictions.jsonl.

    An image that cannot be read is reported, the rest goes on, and the exit status is 1. With
    --precision auto, those images are also what the precisions are compared on.

    \b
        onnxplain explain resnet50.explain.onnx cat.jpg
        onnxplain explain resnet50.explain.onnx photos/ 'more/*.png' -o why
        onnxplain explain resnet50.explain.onnx cat.jpg -t -1 -t -2 -t 'tiger cat'
        onnxplain explain resnet50.explain.onnx photos/ --provider openvino --precision auto
    """
    if precision == "auto":
        explainer = _fastest(model, images, provider, at_least)
    else:
        import onnxplain

        explainer = onnxplain.load(model, provider, precision, at_least=at_least)
    backend = explainer.backend
    err.print(f"{backend.name} on {backend.device} in {backend.precision}", highlight=False)
    explain_images(explainer, images, folder, target, style, temperature)


def _fastest(model: Path, images: list[str], provider: str, at_least: float | None) -> Explainer:
    """What `--precision auto` takes of the first images, with a table of what it tried."""
    from onnxplain.runtime import find_images
    from onnxplain.runtime.loading import fastest

    with err.status("comparing the precisions"):
        compared = list(itertools.islice(_readable(find_images(images)), _COMPARED))
        explainer, trials = fastest(model, compared, provider, None, at_least)
    table = Table("provider", "precision", "cosine", "ms", "")
    for trial in trials:
        tried = not math.isnan(trial.cosine)
        table.add_row(
            trial.provider,
            trial.precision,
            f"{trial.cosine:.6f}" if tried else "",
            f"{1000 * trial.seconds:.1f}" if math.isfinite(trial.seconds) else "",
            escape(trial.problem),
        )
    err.print(table)
    return explainer


def _readable(paths: Iterable[Path]) -> Iterator[Path]:
    """The images that can be read; the others are reported when all are explained."""
    from onnxplain.runtime.images import load_image

    for path in paths:
        with suppress(InputError):
            load_image(path)
            yield path


def explain_images(
    explainer: Explainer,
    images: list[str],
    folder: Path,
    target: list[str] | None,
    style: str,
    temperature: float | None,
) -> None:
    """What the command does once it has what runs the graph."""
    from onnxplain.runtime import find_images
    from onnxplain.runtime.figures import STYLES

    paths = find_images(images)
    targets = [as_target(text) for text in target or ["-1"]]
    explainer.check(targets, temperature)
    if style not in STYLES:
        raise InputError(f"no style {style!r}; choose one of {', '.join(STYLES)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / "predictions.jsonl").open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from error
    names = _picture_names(paths, folder)
    failed = 0
    with log, progress_bar() as progress:
        task = progress.add_task("explaining", total=len(paths))
        for path, name in zip(paths, names, strict=True):
            progress.update(task, description=path.name)
            try:
                if explainer.multi_target:
                    explanation = explainer([path], [targets], temperature)
                else:
                    explanation = explainer([path] * len(targets), targets, temperature)
                explanation.save(folder / name, style=style)
                record = _record(path, folder / name, explanation)
            except InputError as error:
                failed += 1
                record = {"image": str(path), "error": str(error)}
                err.print(f"[red]{escape(str(error))}[/]", soft_wrap=True, highlight=False)
            log.write(json.dumps(record, ensure_ascii=False) + "\n")
            progress.advance(task)
    done = len(paths) - failed
    out.print(f"{done} of {len(paths)} images explained, in {folder}", highlight=False)
    if failed:
        raise typer.Exit(1)


def _picture_names(paths: list[Path], folder: Path) -> list[str]:
    """`cat.png` for `a/cat.jpg`, `cat-2.png` for `b/cat.jpg`; never the name of an image itself."""
    taken = {path.resolve() for path in paths}
    names = []
    for path in paths:
        numbered = (f"{path.stem}{'' if n == 1 else f'-{n}'}.png" for n in itertools.count(1))
        name = next(name for name in numbered if (folder / name).resolve() not in taken)
        taken.add((folder / name).resolve())
        names.append(name)
    return names


def _record(image: Path, picture: Path, explanation: Any) -> dict[str, Any]:
    top = explanation.labels(5)[0]
    targets = explanation.targets.reshape(-1).tolist()
    names = explanation.names if explanation.targets.ndim == 1 else explanation.names[0]
    probabilities = explanation.target_probabilities.reshape(-1).tolist()
    return {
        "image": str(image),
        "picture": str(picture),
        "predictions": [{"name": name, "probability": p} for name, p in top],
        "targets": [
            {"index": index, "name": name, "probability": p}
            for index, name, p in zip(targets, names, probabilities, strict=True)
        ],
    }
