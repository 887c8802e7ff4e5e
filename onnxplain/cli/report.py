"""The command `onnxplain report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, say
from onnxplain.cli.declared import with_options
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import Images, Model, Provider, count
from onnxplain.cli.progress import progress_bar
from onnxplain.contract.picture import OVERLAY, PictureOptions

_OF_A_PAGE = ("colour_bar", "captions", "size", "longest")


@command
@with_options("look", PictureOptions, defaults={"style": OVERLAY}, without=_OF_A_PAGE)
def report(
    model: Model,
    images: Images,
    path: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    targets: Annotated[
        int, count("Classes per image, from the top of the ranking; of a detector, objects.")
    ] = 1,
    steps: Annotated[int, count("Steps of the accentuation.")] = 5,
    provider: Provider = "auto",
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
    *,
    look: PictureOptions,
) -> None:
    """Explain a folder of images on one self-contained HTML page.

    The page can be sorted and searched, has a before/after slider for each image, and opens from
    disk, offline. An image that cannot be read is reported both there and here, and the exit status
    is 1.

    \b
        onnxplain report resnet50.explain.onnx photos/ -o report.html
        onnxplain report yolov8n.explain.onnx street/ --targets 2 -o objects.html
    """
    import onnxplain
    from onnxplain.runtime import find_images
    from onnxplain.runtime.report import write_report

    found = find_images(images)
    explainer = onnxplain.load(model, provider=provider)
    named = {"region": region, "query": query, "box": box, "position": position}
    inputs = read_inputs(explainer.metadata, named, given)
    with progress_bar() as progress:
        task = progress.add_task("explaining", total=len(found))
        failures = write_report(
            explainer,
            found,
            path,
            targets_per_image=targets,
            steps=steps,
            progress=lambda done: progress.update(task, completed=done),
            inputs=inputs,
            look=look,
        )
    for file, reason in failures:
        complain(f"{file}: {reason}")
    say(f"{path}  {len(found) - len(failures)} of {len(found)} images")
    if failures:
        raise typer.Exit(1)
