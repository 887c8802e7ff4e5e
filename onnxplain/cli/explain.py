"""The command `onnxplain explain`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from onnxplain.cli.app import (
    Images,
    Model,
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


@command
def explain(
    model: Model,
    images: Images,
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Where pictures and predictions.jsonl go.")
    ] = Path("explanations"),
    target: Targets = None,
    style: Annotated[str, typer.Option(help="grid, pullback, heatmap or overlay.")] = "grid",
    temperature: Temperature = None,
    provider: Provider = "auto",
) -> None:
    """Explain images: one picture each, and a JSON line each in predictions.jsonl.

    An image that cannot be read is reported, the rest goes on, and the exit status is 1.

    \b
        onnxplain explain resnet50.explain.onnx cat.jpg
        onnxplain explain resnet50.explain.onnx photos/ 'more/*.png' -o why
        onnxplain explain resnet50.explain.onnx cat.jpg -t -1 -t -2 -t 'tiger cat'
    """
    import onnxplain
    from onnxplain.runtime import find_images
    from onnxplain.runtime.figures import STYLES

    explainer = onnxplain.load(model, provider=provider)
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
