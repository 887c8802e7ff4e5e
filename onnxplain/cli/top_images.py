"""The command `onnxplain top-images`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onnxplain.cli.app import GraphProvider, Size, Weights, as_size, command, err, out
from onnxplain.cli.meter import Meter, rate_bar
from onnxplain.errors import InputError

if TYPE_CHECKING:
    from onnxplain.vital.search.top_images import TopImages

_LISTED = 10  # of the images that were passed over; the file has them all


@command
def top_images(
    source: Annotated[str, typer.Argument(help="A network, as for `onnxplain export`.")],
    images: Annotated[list[str], typer.Argument(help="Folders of images, and image files.")],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="A module's path, `layer4.1`, or a value's name. Give it again for more. "
            "[default: the stem and four stages]",
        ),
    ] = None,
    path: Annotated[
        Path, typer.Option("--out", "-o", help="The table to begin, or to resume.")
    ] = Path("top-images.json"),
    k: Annotated[int, typer.Option("-k", min=1, help="Images per channel.")] = 9,
    by: Annotated[
        str, typer.Option(help="max, the greatest activation, or mean, over the positions.")
    ] = "max",
    channel: Annotated[
        list[int] | None,
        typer.Option("--channel", "-c", help="Show the best images of one. Again for more."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="A picture of them to write, with their patches.")
    ] = None,
    weights: Weights = "DEFAULT",
    size: Size = None,
    provider: GraphProvider = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per run. [default: 4, on a GPU 32]")
    ] = None,
) -> None:
    """Find the images, and the patches in them, that excite each channel of a layer most.

    One pass over any number of images. The patch is what the channel's most active position sees.
    An image that cannot be read is reported, the rest goes on, and the exit status is 1.

    \b
        onnxplain top-images resnet50 photos/ --layer layer4
        onnxplain top-images resnet50 photos/ --layer layer4 -c 7 -c 512 --sheet best.png
        onnxplain top-images model.onnx photos/ -k 50 --by mean -o by-mean.json

    Killed or interrupted, give the same command again: it goes on where it was, and the table
    becomes what it would have been. With a finished table it only shows --channel. Read it with

    \b
        onnxplain.vital.TopImages.load("top-images.json").best(7)   # paths, best first
    """
    from onnxplain.vital.graphs.subject import read_subject
    from onnxplain.vital.search.run import top_images as find

    if sheet is not None and not channel:
        raise InputError("--sheet shows channels; give some with --channel")
    with err.status("reading the network"):
        subject = read_subject(source, weights=weights, size=as_size(size), layers=layer or [])
    _check(subject, channel or [])
    with rate_bar() as bar:
        task = bar.add_task("listing", total=None, rate="")
        meter = Meter()

        def ranked(done: int, count: int) -> None:
            rate = f"{meter.rate(done):.1f} images/s"
            bar.update(task, description="ranking", completed=done, total=count, rate=rate)

        table = find(
            subject,
            images,
            k=k,
            by=by,
            path=path,
            provider=provider,
            batch=batch,
            listed=lambda count: bar.update(task, completed=count),
            progress=ranked,
        )
    _report(table, path, meter.rate(table.done))
    if channel:
        _show(table, channel)
    if sheet is not None:
        from onnxplain.runtime.pictures.figures import write_image
        from onnxplain.vital.search.contact_sheet import contact_sheet

        write_image(contact_sheet(table, channel or []), sheet)
        out.print(f"{sheet}", highlight=False, soft_wrap=True)
    if table.failures:
        raise typer.Exit(1)


def _check(subject: Any, channels: list[int]) -> None:
    """That there are such channels, before the long work."""
    if not channels:
        return
    if len(subject.layers) != 1:
        raise InputError(f"--channel is of one --layer: {', '.join(subject.layers.values())}")
    (named,) = subject.layers.items()
    count = replace(subject, neuron=named).neurons()
    for channel in channels:
        if not 0 <= channel < count:
            raise InputError(f"{named[1]!r} has no channel {channel}: they are 0 to {count - 1}")


def _report(table: TopImages, path: Path, rate: float) -> None:
    count = table.done - len(table.failures)
    channels = sum(ranking.layer.channels for ranking in table.rankings)
    out.print(
        f"{path}  {count} of {table.done} images ranked for {channels} channels"
        + (f"; {rate:.1f} images/s" if rate else ""),
        highlight=False,
        soft_wrap=True,
    )
    for failure in table.failures[:_LISTED]:
        err.print(f"[red]{escape(failure.reason)}[/]", soft_wrap=True, highlight=False)
    if (more := len(table.failures) - _LISTED) > 0:
        err.print(f"[red]and {more} more; the table has them all[/]", highlight=False)


def _show(table: TopImages, channels: list[int]) -> None:
    shown = Table("channel", "max", "mean", "left, top, right, bottom")
    shown.add_column("image", overflow="fold")
    for channel in channels:
        for patch in table.patches(channel):
            box = ", ".join(map(str, patch.box))
            numbers = f"{patch.maximum:.4g}", f"{patch.mean:.4g}"
            shown.add_row(str(channel), *numbers, box, escape(patch.photograph.path))
    out.print(shown)
