"""The command `onnxplain batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, say
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import (
    BatchSize,
    Model,
    Precision,
    Temperature,
    UsualTarget,
    as_target,
    count,
)
from onnxplain.cli.progress import ImageBar

if TYPE_CHECKING:
    from onnxplain.batch import Summary

Inputs = Annotated[
    list[str],
    typer.Argument(help="Images, .tar files, Parquet tables, folders and glob patterns of them."),
]
Folder = Annotated[Path, typer.Option("--out", "-o", help="The folder to begin, or to resume.")]
Top = Annotated[int, count("Likeliest classes to keep of each image.")]
Store = Annotated[
    str,
    typer.Option(help="pullback, as half floats, or heatmap, as 8-bit grey PNG: far smaller."),
]
Provider = Annotated[
    str,
    typer.Option(
        help="What runs the graph, for all images: cpu, openvino, cuda, ort-tensorrt, tensorrt "
        "or tensorrt-rtx."
    ),
]
ShardSize = Annotated[int, count("Images per file of the table; the most that a kill can cost.")]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        help="A table's column of encoded images.", show_default="the only one that can be it"
    ),
]
IdColumn = Annotated[
    str | None, typer.Option(help="A table's column of ids.", show_default="TABLE#ROW")
]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster, as host:6379 or auto.", show_default="this machine"),
]
Workers = Annotated[
    int | None,
    count("Processes.", show_default="one per GPU, or per core / threads"),
]
Threads = Annotated[
    int | None,
    count("Threads per process.", show_default="1; on a GPU 8, which decode"),
]


@command
def batch(
    model: Model,
    inputs: Inputs,
    folder: Folder,
    target: UsualTarget = None,
    top: Top = 5,
    store: Store = "pullback",
    temperature: Temperature = None,
    provider: Provider = "cpu",
    precision: Precision = "float32",
    batch_size: BatchSize = None,
    shard_size: ShardSize = 256,
    image_column: ImageColumn = None,
    id_column: IdColumn = None,
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
) -> None:
    """Explain any number of images into a Parquet table, each exactly once.

    \b
        onnxplain batch model.explain.onnx photos/ -o photos.explained
        onnxplain batch model.explain.onnx 'shards/*.tar' -o why --store heatmap
        onnxplain batch model.explain.onnx table.parquet --id-column url -o why
        onnxplain batch yolov8n.explain.onnx street/ -o objects        # the best object of each
        onnxplain batch clip.explain.onnx photos/ -o why --query text.npy
        onnxplain batch /lake/model.onnx /lake/in -o /lake/out --address auto

    If it was killed or interrupted, give the same command again: it goes on where it was, and the
    table becomes what it would have been. An image that cannot be read is a row with its error, and
    the exit status is 1. With a cluster, every machine needs onnxplain and the same paths.

    The table is OUT/table; OUT/manifest.json has the files' checksums once all are there. Read it
    with anything that reads Parquet; the pullback of a row is pullback_scale × pullback:

    \b
        table = pyarrow.parquet.read_table("photos.explained/table")
    """
    from onnxplain.batch import Columns, Options, Pool, explain_lake
    from onnxplain.runtime.loading import metadata_of

    named = {"region": region, "query": query, "box": box, "position": position}
    options = Options(
        target=None if target is None else as_target(target),
        top=top,
        store=store,
        temperature=temperature,
        provider=provider,
        precision=precision,
        batch_size=batch_size,
        shard_size=shard_size,
        columns=Columns(image_column, id_column),
        inputs=read_inputs(metadata_of(model), named, given),
    )
    pool = Pool(address, workers, threads)
    with ImageBar("explaining") as bar:
        summary = explain_lake(model, inputs, folder, options, pool, bar.listed, bar.done)
    _report(folder, summary, bar.rate)
    if summary.errors:
        raise typer.Exit(1)


def _report(folder: Path, summary: Summary, rate: float) -> None:
    say(
        f"{folder}  {summary.images - summary.errors} of {summary.images} images explained"
        + (f", {summary.earlier} of them earlier" if summary.earlier else "")
        + (f"; {rate:.1f} images/s" if rate else "")
    )
    if summary.errors:
        complain(
            f"{summary.errors} image{'s' if summary.errors > 1 else ''} could not be explained; "
            "the table's column `error` says why"
        )
