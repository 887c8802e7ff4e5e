"""The command `onnxplain web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import say
from onnxplain.cli.progress import progress_bar


@command
def web(
    models: Annotated[
        list[Path], typer.Argument(help="Explain graphs, made by `onnxplain export`.")
    ],
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path(
        "site"
    ),
    photographs: Annotated[
        list[str] | None,
        typer.Option(
            "--photographs", help="Images that the page offers: files, folders and glob patterns."
        ),
    ] = None,
) -> None:
    """Write a static site that explains images in the browser; no image ever leaves the page.

    The page brings ONNX Runtime for the browser with it (fetched once with npm) and needs no
    server code. Export with --live-temperature to get a slider for the temperature; other live
    parameters stay as exported. Of several graphs, and of photographs that it brings, it has a
    menu. What an objective takes besides the photograph are fields of the page: boxes and regions
    are drawn on it.

    \b
        onnxplain export efficientnet-lite0 --live-temperature --temperature 1
        onnxplain web efficientnet-lite0.explain.onnx -o site
        python -m http.server -d site
        onnxplain web resnet50.explain.onnx vgg11_bn.explain.onnx --photographs photos/
    """
    from onnxplain.runtime import find_images
    from onnxplain.web import STAGES, write_site

    with progress_bar() as progress:
        task = progress.add_task(STAGES[0], total=len(STAGES))
        write_site(
            models,
            folder,
            lambda stage: progress.update(task, description=stage, completed=STAGES.index(stage)),
            list(find_images(photographs)) if photographs else (),
        )
    say(f"{folder}  look at it: python -m http.server -d {folder}")
