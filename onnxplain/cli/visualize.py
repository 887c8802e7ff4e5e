"""The command `onnxplain visualize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.progress import TaskID

from onnxplain.cli.app import command
from onnxplain.cli.console import err, out
from onnxplain.cli.options import GraphProvider, Size, Weights, as_floats, as_size, as_target
from onnxplain.cli.progress import progress_bar
from onnxplain.errors import InputError

PREVIEW, UNFINISHED = "preview.png", "unfinished.npz"


@command
def visualize(
    source: Annotated[
        str, typer.Argument(help="A network, as for `onnxplain export`: a name, or a file.")
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="A class, by index or name. Give it again for more pictures."
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="In place of a class: an inner layer, by its name…")
    ] = None,
    channel: Annotated[
        list[int] | None, typer.Option(help="… and a channel of it. Give it again for more.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            "-r",
            help="A folder of photographs of the class, or with a folder of each class in it, "
            "named by index or name; for a channel, any photographs.",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")] = Path(
        "visualisations"
    ),
    objective: Annotated[
        str,
        typer.Option(
            help="vital; or, to compare with, activation (plain maximisation) or fourier (the same "
            "on the picture's spectrum)."
        ),
    ] = "vital",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisation.")] = 2000,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's.  [default: 1, or 0.05 of a spectrum]")
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=1, help="Views of the references; random crops where photographs are few."
        ),
    ] = 50,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer to match, from the image on. [default: the stem and four stages]"
        ),
    ] = None,
    layer_weights: Annotated[
        str | None, typer.Option(help="Of the matched layers, with commas between.")
    ] = None,
    priors: Annotated[
        str | None,
        typer.Option(help="Weights of total variation (mean, norm) and of the norm: 0,3e-7,3e-7."),
    ] = None,
    relevance: Annotated[
        str, typer.Option(help="Of earlier layers to a channel: lrp, restricted or guided.")
    ] = "lrp",
    roll: Annotated[int, typer.Option(min=0, help="Pixels that a step may roll it by.")] = 30,
    mirror: Annotated[bool, typer.Option(help="Mirror it in every other step, by chance.")] = False,
    start_size: Annotated[
        int | None, typer.Option(min=8, help="Begin with a picture of so many pixels a side.")
    ] = None,
    start_steps: Annotated[int, typer.Option(min=1, help="For so many steps.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, the rolls and the crops.")] = 0,
    weights: Weights = "DEFAULT",
    size: Size = None,
    provider: GraphProvider = "auto",
    precision: Annotated[str, typer.Option(help="float32; of openvino bfloat16 too.")] = "float32",
    step_graph: Annotated[
        Path | None, typer.Option(help="Keep the step's graph too, an ONNX file.")
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

    It writes pictures, also with what the optimisation left alone transparent, a contact sheet, an
    animation and `visualisation.json`.
    """
    from onnxplain.runtime.pictures.figures import write_image
    from onnxplain.vital import output
    from onnxplain.vital.phase import Progress
    from onnxplain.vital.settings import Settings
    from onnxplain.vital.state import files
    from onnxplain.vital.visualize import visualize

    settings = Settings(
        objective=objective,
        steps=steps,
        learning_rate=learning_rate,
        roll=roll,
        mirror=mirror,
        weights=as_floats(layer_weights, "--layer-weights"),
        priors=_three(as_floats(priors, "--priors")),
        relevance=relevance,
        references=count,
        seed=seed,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write to '{folder}': no permission")
    unfinished = folder / UNFINISHED
    if any(path.exists() for path in files(unfinished)):
        err.print(f"going on from {unfinished}", highlight=False)
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
                write_image(Image.fromarray(now.pictures[0]), folder / PREVIEW)

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
            weights=weights,
            size=as_size(size),
            provider=provider,
            precision=precision,
            state=unfinished,
            step_graph=step_graph,
            progress=report,
        )
    written = output.write(seen, folder)
    for path in (folder / PREVIEW, *files(unfinished)):
        path.unlink(missing_ok=True)
    for i, path in enumerate(written):
        probability = seen.probabilities[i]
        shown = "" if probability != probability else f"  {probability:.1%}"
        out.print(
            f"{path}  {seen.names[i]}{shown}  loss {seen.losses[0, i]:.4g} to "
            f"{seen.losses[-1, i]:.4g}",
            highlight=False,
            soft_wrap=True,
        )
    out.print(f"{folder / output.SHEET}  {folder / output.ANIMATION}", highlight=False)


def _three(numbers: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    if numbers is None:
        return None
    if len(numbers) != 3:
        raise InputError(f"--priors takes three numbers, not {len(numbers)}")
    return numbers[0], numbers[1], numbers[2]
