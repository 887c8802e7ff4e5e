"""The command `onnxplain verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import err, out, shown
from onnxplain.cli.options import AtLeast, Model, Precision, Provider, Weights

if TYPE_CHECKING:
    from onnxplain.reference.checks import Verification


@command
def verify(
    model: Model,
    source: Annotated[
        str | None,
        typer.Option(help="The network it was exported from, as for `onnxplain export`."),
    ] = None,
    weights: Weights = "DEFAULT",
    input_name: Annotated[
        str | None, typer.Option("--input", help="The image, where an .onnx source has several.")
    ] = None,
    output_name: Annotated[
        str | None, typer.Option("--output", help="The logits, where an .onnx source has several.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="The ONNX file of the objective, where that was one.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Images to compare on; else seeded noise.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="The largest relative error, with no second look in float64.",
            show_default="1e-4, in float64 1e-3; of finite differences 1e-2, along noise 1e-1",
        ),
    ] = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
    at_least: AtLeast = None,
) -> None:
    """Check an explain graph, or what runs it: exit status 0 if it is right, 1 if not.

    With --source, against the independent PyTorch reference in float64; an .onnx source against a
    fresh derivation, evaluated in float64, in which a quantised graph is evaluated too. Without,
    another provider or precision than ONNX Runtime's float32 on the CPU is checked against that;
    and on the CPU a `gradient` graph against finite differences of its own logits (no PyTorch
    needed).

    \b
        onnxplain verify resnet50.explain.onnx --source resnet50
        onnxplain verify classifier.explain.onnx --source classifier.onnx
        onnxplain verify resnet50.explain.onnx --provider openvino --precision bfloat16
    """
    from onnxplain.reference.verification import verify
    from onnxplain.runtime import find_images

    images = find_images(image) if image else None
    with err.status("verifying"):
        found = verify(
            model,
            source,
            weights=weights,
            input=input_name,
            output=output_name,
            objective=objective,
            images=images,
            provider=provider,
            precision=precision,
            tolerance=tolerance,
            at_least=at_least,
        )
    out.print(table_of(f"{model}", found))
    for note in found.notes:
        out.print(shown(note))
    if not found.passed:
        raise typer.Exit(1)


def table_of(model: str, found: Verification) -> Table:
    """What was found, in 80 columns."""
    images = "1 image" if found.images == 1 else f"{found.images} images"
    title = shown(f"{model}: {found.against}, {images}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", min_width=len("along the pullback"))
    for name in ("largest\ndifference", "relative\nerror", "cosine"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("asked for")
    table.add_column("", no_wrap=True)
    for check in found.checks:
        table.add_row(
            check.what,
            _figure(check.max_abs),
            _figure(check.relative_error),
            f"{check.cosine:.9f}",
            check.bound,
            "[green]ok[/]" if check.passed else "[bold red]WRONG[/]",
        )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"
