"""The command `onnxplain top-images`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, err, out, say, shown
from onnxplain.cli.options import BatchSize, Provider, Size, Source, Weights, as_size
from onnxplain.cli.progress import ImageBar
from onnxplain.errors import InputError
from onnxplain.files import writable

if TYPE_CHECKING:
    from onnxplain.vital.search.top_images import TopImages

_LISTED = 10  # of the images that were passed over; the file has them all


Folders = Annotated[list[str], typer.Argument(help="Folders of images, and image files.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        help="A module's path, `layer4.1`, or a value's name. Give it again for more.",
        show_default="the stem and four stages",
    ),
]
TableFile = Annotated[Path, typer.Option("--out", "-o", help="The table to begin, or to resume.")]
Count = Annotated[int, typer.Option("-k", min=1, help="Images per channel.")]
By = Annotated[
    str | None,
    typer.Option(
        help="max, the greatest activation, or mean, over the positions.",
        show_default="max; with --patch, mean",
    ),
]
Patch = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Slide a window this many pixels wide over each image and take the patch of the "
        "greatest mean, as VITAL with 64.",
    ),
]
Channels = Annotated[
    list[int] | None,
    typer.Option(
        "--channel", "-c", help="Show the best images of this channel. Give it again for more."
    ),
]
Sheet = Annotated[Path | None, typer.Option(help="A picture of them to write, with their patches.")]


@command
def top_images(
    source: Source,
    images: Folders,
    layer: Layers = None,
    path: TableFile = Path("top-images.json"),
    k: Count = 9,
    by: By = None,
    patch: Patch = None,
    channel: Channels = None,
    sheet: Sheet = None,
    weights: Weights = "DEFAULT",
    size: Size = None,
    provider: Provider = "auto",
    batch: BatchSize = None,
) -> None:
    """Find the images, and the patches in them, that excite each channel of a layer most.

    One pass over any number of images. The patch is what the channel's most active position sees,
    or with --patch the best one under a sliding window.
    An image that cannot be read is reported, the rest goes on, and the exit status is 1.

    \b
        onnxplain top-images resnet50 photos/ --layer layer4
        onnxplain top-images resnet50 photos/ --layer layer4 -c 7 -c 512 --sheet best.png
        onnxplain top-images model.onnx photos/ -k 50 --by mean -o by-mean.json
        onnxplain top-images resnet50 photos/ -l layer3 --patch 64 -c 7 --sheet best.png

    If it was killed or interrupted, give the same command again: it goes on where it was, and the
    table becomes what it would have been. With a finished table it only shows --channel. Read it
    with

    \b
        onnxplain.vital.TopImages.load("top-images.json").best(7)   # paths, best first
    """
    from onnxplain.runtime.pictures.figures import format_of, write_image
    from onnxplain.vital.search.run import check_search
    from onnxplain.vital.search.run import top_images as find

    if sheet is not None:
        format_of(writable(sheet))
        if not channel:
            raise InputError("--sheet shows channels; give some with --channel")
    check_search(images, k, by, patch, path, provider, batch)
    pixels = as_size(size)
    from onnxplain.vital.graphs.subject import read_subject

    with err.status("reading the network"):
        subject = read_subject(source, weights=weights, size=pixels, layers=layer or [])
    _check(subject, channel or [])
    with ImageBar("ranking") as bar:
        table = find(
            subject,
            images,
            k=k,
            by=by,
            patch=patch,
            path=path,
            provider=provider,
            batch=batch,
            listed=bar.listed,
            progress=bar.done,
        )
    _report(table, path, bar.rate)
    if channel:
        _show(table, channel)
    if sheet is not None:
        from onnxplain.vital.search.contact_sheet import contact_sheet

        write_image(contact_sheet(table, channel or []), sheet)
        say(str(sheet))
    if table.failures:
        raise typer.Exit(1)


def _check(subject: Any, channels: list[int]) -> None:
    """Refuse channels that the layer does not have, before the long work."""
    if not channels:
        return
    if len(subject.layers) != 1:
        raise InputError(f"--channel goes with one --layer: {', '.join(subject.layers.values())}")
    (named,) = subject.layers.items()
    count = replace(subject, neuron=named).neurons()
    for channel in channels:
        if not 0 <= channel < count:
            raise InputError(f"{named[1]!r} has no channel {channel}: they are 0 to {count - 1}")


def _report(table: TopImages, path: Path, rate: float) -> None:
    count = table.done - len(table.failures)
    channels = sum(ranking.layer.channels for ranking in table.rankings)
    say(
        f"{path}  {count} of {table.done} images ranked for {channels} channels"
        + (f"; {rate:.1f} images/s" if rate else "")
    )
    for failure in table.failures[:_LISTED]:
        complain(failure.reason)
    if (more := len(table.failures) - _LISTED) > 0:
        complain(f"and {more} more; the table has them all")


def _show(table: TopImages, channels: list[int]) -> None:
    rows = Table("channel", "max", "mean", "left, top, right, bottom")
    rows.add_column("image", overflow="fold")
    for channel in channels:
        for patch in table.patches(channel):
            box = ", ".join(map(str, patch.box))
            numbers = f"{patch.maximum:.4g}", f"{patch.mean:.4g}"
            rows.add_row(str(channel), *numbers, box, shown(patch.photograph.path))
    out.print(rows)
