"""The command `onnxplain run-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.declared import with_options
from onnxplain.cli.explain import Batch, Folder, explain_images
from onnxplain.cli.options import Images, Targets, Temperature, as_target
from onnxplain.contract.picture import GRID, PictureOptions


@command
@with_options("look", PictureOptions, defaults={"style": GRID})
def run_engine(
    engine: Annotated[Path, typer.Argument(help="An engine, made by `onnxplain build`.")],
    images: Images,
    folder: Folder = Path("explanations"),
    target: Targets = None,
    *,
    look: PictureOptions,
    temperature: Temperature = None,
    batch: Batch = "auto",
) -> None:
    """Explain images with an engine, on the GPU: what `explain` does with a graph.

    \b
        onnxplain build resnet50.explain.onnx --sm 89
        onnxplain run-engine resnet50.explain.engine photos/ -o why
    """
    look.check()
    from onnxplain.runtime import Explainer
    from onnxplain.runtime.sessions.tensorrt import open_engine

    explainer = Explainer(open_engine(engine))
    explainer.check([as_target(text) for text in target] if target else None, temperature)
    explain_images(explainer, images, folder, target, look, temperature, batch)
