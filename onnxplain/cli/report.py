"""The command `onnxplain report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from onnxplain.cli.app import Images, Model, Provider, command, err, out, progress_bar


@command
def report(
    model: Model,
    images: Images,
    path: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    targets: Annotated[
        int, typer.Option(min=1, help="Classes per image, from the top of the ranking.")
    ] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the accentuation.")] = 5,
    provider: Provider = "auto",
) -> None:
    """Explain a folder of images on one self-contained HTML page.

    Sortable, searchable, with a before/after slider for each image; opens from disk, offline. An
    image that cannot be read is reported there and here, and the exit status is 1.

    \b
        onnxplain report resnet50.explain.onnx photos/ -o report.html
    """
    import onnxplain
    from onnxplain.runtime import find_images
    from onnxplain.runtime.report import write_report

    explainer = onnxplain.load(model, provider=provider)
    found = find_images(images)
    with progress_bar() as progress:
        task = progress.add_task("explaining", total=len(found))
        failures = write_report(
            explainer,
            found,
            path,
            targets_per_image=targets,
            steps=steps,
            progress=lambda done: progress.update(task, completed=done),
        )
    for file, reason in failures:
        err.print(f"[red]{escape(f'{file}: {reason}')}[/]", soft_wrap=True, highlight=False)
    out.print(f"{path}  {len(found) - len(failures)} of {len(found)} images", highlight=False)
    if failures:
        raise typer.Exit(1)
