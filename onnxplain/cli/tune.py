"""The command `onnxplain tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import out, say
from onnxplain.cli.export_options import with_export_options
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import Images
from onnxplain.cli.progress import progress_bar
from onnxplain.contract.request import ExportOptions


@command
@with_export_options(
    without=[
        "labels",
        "multi_target",
        "live_temperature",
        "live",
        "step",
        "unroll",
        "kernels",
        "layer",
        "check",
    ]
)
def tune(
    source: Annotated[
        str,
        typer.Argument(
            help="What `onnxplain export` takes, or a NAME.explain.onnx with live temperature."
        ),
    ],
    images: Images,
    *,
    path: Annotated[Path, typer.Option("--out", "-o", help="The plot to write.")] = Path(
        "tuning.png"
    ),
    classes: Annotated[
        int, typer.Option(min=1, help="Classes per image: the predicted one, the others random.")
    ] = 6,
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
    options: ExportOptions,
) -> None:
    """Find a network's temperature on your own images.

    It is the softest at which five steps along the pullback still raise the target's logit for at
    least 90 % of image × class pairs; of no classifier, the objective. Takes a few minutes; a
    handful of images is enough.

    \b
        onnxplain tune efficientnet-lite0 photos/
        onnxplain tune convnext_tiny photos/ --method semantic
        onnxplain export efficientnet-lite0 --temperature auto --images photos/   # tune and use it
    """
    from onnxplain.runtime import find_images
    from onnxplain.runtime.tune import TEMPERATURES
    from onnxplain.tuning import plot, tune_source

    found = find_images(images)
    named = {"region": region, "query": query, "box": box, "position": position}
    with progress_bar() as progress:
        task = progress.add_task("tuning", total=len(TEMPERATURES))
        tuning = tune_source(
            source,
            found,
            options,
            classes=classes,
            progress=lambda done: progress.update(task, completed=done),
            read=lambda metadata: read_inputs(metadata, named, given),
        )
    table = Table(
        "T", f"{tuning.scalar}s raised", "median gain", "shift", "noise", "class sensitivity"
    )
    for i, T in enumerate(tuning.temperatures):
        row = [f"{T:.2f}", f"{tuning.raised[i]:.0%}", f"{tuning.gain[i]:+.2f}"]
        for curve in (tuning.shift_stability, tuning.noise_stability, tuning.sensitivity):
            row.append("–" if curve[i] != curve[i] else f"{curve[i]:.2f}")
        table.add_row(*row, style="bold green" if tuning.temperature == T else None)
    out.print(table)
    if (tuning.shift_stability != tuning.shift_stability).all():
        say("shift: not measured, as a box or a region does not move with the photograph")
    plot(tuning, path, Path(source).name)
    say(f"temperature {tuning.temperature:.3g} ({tuning.pairs} pairs); the curves: {path}")
