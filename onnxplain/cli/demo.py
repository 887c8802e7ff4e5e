"""The command `onnxplain demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import out
from onnxplain.cli.progress import progress_bar


@command
def demo(
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Where the graphs, the pictures and figures go.")
    ] = Path("onnxplain-demo"),
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 15,
) -> None:
    """See it work: a real ImageNet network explains three photographs.

    Exports EfficientNet-Lite0 with its trained weights, explains a cat, a coffee and a rocket for
    their top-3 classes, draws them, and measures parity with PyTorch and the time it takes.
    """
    from onnxplain.demo import run

    run(folder, repeats, out, progress_bar)
