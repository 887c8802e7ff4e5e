"""The command `onnxplain visualize`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import note, say
from onnxplain.cli.declared import with_options
from onnxplain.cli.options import Provider, Size, Source, Weights, as_size, as_target
from onnxplain.cli.progress import progress_bar
from onnxplain.errors import InputError
from onnxplain.vital.settings import Settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from onnxplain.vital.phase import Progress
    from onnxplain.vital.result import Visualisation

PREVIEW, UNFINISHED = "preview.png", "unfinished.npz"

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help="A class, by index or name. Give it again for more pictures."
    ),
]
References = Annotated[
    Path | None,
    typer.Option(
        "--references",
        "-r",
        help="A folder of photographs of the class, or of folders of them, each named for its "
        "class by index or name; for a channel, any photographs. Needed but for --objective "
        "activation and fourier.",
    ),
]


@command
@with_options("settings", Settings, without=["warm_up"])
def visualize(
    source: Source,
    *,
    target: Targets = None,
    layer: Annotated[
        str | None, typer.Option(help="In place of a class: an inner layer, by its name…")
    ] = None,
    channel: Annotated[
        list[int] | None, typer.Option(help="… and a channel of it. Give it again for more.")
    ] = None,
    references: References = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")] = Path(
        "visualisations"
    ),
    settings: Settings,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer to match; give it again for more, in the order from the image on.",
            show_default="the stem and four stages",
        ),
    ] = None,
    start_size: Annotated[
        int | None, typer.Option(min=8, help="Begin with a picture this many pixels wide and high.")
    ] = None,
    start_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps at --start-size or --start-pooled, before the others.",
            show_default="500",
        ),
    ] = None,
    start_pooled: Annotated[
        bool,
        typer.Option(
            help="Begin with --start-steps in which the network sees the picture and the "
            "references at half their size, averaged. VITAL's: 2,000, and --steps 1000."
        ),
    ] = False,
    weights: Weights = "DEFAULT",
    size: Size = None,
    provider: Provider = "auto",
    precision: Annotated[
        str, typer.Option(help="float32; with --provider openvino also bfloat16 and float16.")
    ] = "float32",
    step_graph: Annotated[
        Path | None, typer.Option(help="Keep the graph of a step, too, as an ONNX file.")
    ] = None,
) -> None:
    """Make a picture of what a class, or a channel of an inner layer, looks for.

    Not the picture that excites it most, which is noise, but one whose activations at several
    layers are distributed as those of real images (VITAL, Görgün et al. 2025). Each of the 2,000
    steps is one run of one ONNX graph; `preview.png` shows how far it is. Interrupted and started
    again, it goes on where it was and ends in the same picture.

    \b
        onnxplain visualize efficientnet-lite0 -t espresso -r photos/espresso
        onnxplain visualize resnet50 -t tabby -t goldfish -r photos
        onnxplain visualize resnet50 --layer layer3 --channel 12 --channel 40 -r photos
        onnxplain visualize my_classifier.onnx -t 3 -r class3 --provider openvino

    It writes the pictures, each also with what the optimisation left alone made transparent, a
    contact sheet, an animation and `visualisation.json`.
    """
    from onnxplain.vital.visualize import visualize

    with _made(folder), _progress(folder / PREVIEW) as report:
        unfinished = _unfinished(folder)
        seen = visualize(
            source,
            target=[as_target(text) for text in target] if target else None,
            layer=layer,
            channel=channel or None,
            references=references,
            layers=layers or (),
            settings=settings,
            start_size=start_size,
            start_steps=start_steps,
            start_pooled=start_pooled,
            weights=weights,
            size=as_size(size),
            provider=provider,
            precision=precision,
            state=unfinished,
            step_graph=step_graph,
            progress=report,
        )
    _write(seen, folder, unfinished)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder that can be written; one that was new goes if nothing is written to it."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write to '{folder}': no permission")
    try:
        yield
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _unfinished(folder: Path) -> Path:
    """Where the optimisation's state is kept."""
    from onnxplain.vital.state import files

    unfinished = folder / UNFINISHED
    if any(path.exists() for path in files(unfinished)):
        note(f"going on from {unfinished}")
    return unfinished


@contextmanager
def _progress(preview: Path) -> Iterator[Callable[[Progress], None]]:
    """Shows what it is told on a bar for each stage, and the pictures so far in `preview`."""
    from PIL import Image

    from onnxplain.runtime.pictures.figures import write_image

    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def report(now: Progress) -> None:
            if now.stage not in tasks:
                tasks[now.stage] = bar.add_task(now.stage, total=now.total)
            loss = "" if now.loss is None else f"  loss {now.loss:.4g}"
            bar.update(
                tasks[now.stage],
                completed=now.done,
                total=now.total,
                description=now.stage + loss,
            )
            if now.pictures is not None:
                write_image(Image.fromarray(now.pictures[0]), preview)

        yield report


def _write(seen: Visualisation, folder: Path, unfinished: Path) -> None:
    """Write the pictures, remove what was there until they were done, and say what was written."""
    from onnxplain.vital import output
    from onnxplain.vital.state import files

    written = output.write(seen, folder)
    for path in (folder / PREVIEW, *files(unfinished)):
        path.unlink(missing_ok=True)
    for i, path in enumerate(written):
        probability = seen.probabilities[i]
        shown = "" if probability != probability else f"  {probability:.1%}"
        say(
            f"{path}  {seen.names[i]}{shown}  loss {seen.losses[0, i]:.4g} to "
            f"{seen.losses[-1, i]:.4g}"
        )
    say(f"{folder / output.SHEET}  {folder / output.ANIMATION}")
