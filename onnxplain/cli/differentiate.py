"""The command `onnxplain differentiate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command, with_flags
from onnxplain.cli.console import file_size, note, say
from onnxplain.cli.declared import with_options
from onnxplain.cli.export_options import as_names, as_sizes
from onnxplain.cli.progress import progress_bar, stages_of
from onnxplain.contract.derivatives import DifferentiateOptions


@command
@with_options(
    "options",
    DifferentiateOptions,
    without=["progress"],
    read={"of": as_names, "wrt": as_names, "sizes": as_sizes},
)
def differentiate(
    source: Annotated[Path, typer.Argument(help="An ONNX file, of any network or computation.")],
    *,
    path: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write.", show_default="NAME.grad.onnx"),
    ] = None,
    options: DifferentiateOptions,
) -> None:
    """Add derivatives to any ONNX file: gradients, Jacobians, Hessian-vector products.

    \b
        onnxplain differentiate potential.onnx --of energy --wrt positions
            # + grad.positions; the forces are its negative
        onnxplain differentiate model.onnx --of y --wrt x --seed input
            # + grad.x, the vector-Jacobian product with the new input seed.y
        onnxplain differentiate model.onnx --of y --wrt x --jacobian
            # + jacobian.y.x, of the shape of y and then of x
        onnxplain differentiate model.onnx --of loss --wrt x --second
            # + hvp.x, the Hessian times the new input direction.x
        onnxplain differentiate bert.onnx --wrt embeddings --sizes sequence=128
            # by an inner value; and a number for a size that was open

    The file keeps all its inputs and outputs, and needs no framework to run. From Python:
    onnxplain.differentiate("potential.onnx", "forces.onnx", of="energy", wrt="positions").
    """
    import onnxplain
    from onnxplain.export.differentiate import STAGES

    path = path or Path(f"{source.stem}.grad.onnx")
    with progress_bar() as progress:
        begin = stages_of(progress, STAGES)
        made = onnxplain.differentiate(source, path, **vars(replace(options, progress=begin)))
        begin("done")
    say(f"{path}  {file_size(path)}")
    for name, words in {**made.inputs, **made.outputs}.items():
        say(f"  {'in ' if name in made.inputs else 'out'}  {name}  {words}")
    for line in made.notes:
        note(f"note: {with_flags(line)}")
