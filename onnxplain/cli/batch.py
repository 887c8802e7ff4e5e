"""The command `onnxplain batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import Model, Precision, Temperature, as_target, command, err, out
from onnxplain.cli.meter import Meter, rate_bar

Inputs = Annotated[
    list[str],
    typer.Argument(help="Images, .tar files, Parquet tables, folders and glob patterns of them."),
]
Folder = Annotated[Path, typer.Option("--out", "-o", help="The folder to begin, or to resume.")]


@command
def batch(
    model: Model,
    inputs: Inputs,
    folder: Folder,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help="A class index or name; -1 the predicted class, -2 the runner-up.",
        ),
    ] = "-1",
    top: Annotated[int, typer.Option(min=1, help="Likeliest classes per image.")] = 5,
    store: Annotated[
        str,
        typer.Option(help="pullback, as half floats, or heatmap, as 8-bit grey PNG: far smaller."),
    ] = "pullback",
    temperature: Temperature = None,
    provider: Annotated[
        str,
        typer.Option(
            help="What runs the graph, for all images: cpu, openvino, cuda, ort-tensorrt, tensorrt "
            "or tensorrt-rtx."
        ),
    ] = "cpu",
    precision: Precision = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per run of the graph. [default: 4, on a GPU 32]"),
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images per file of the table; what a kill can cost.")
    ] = 256,
    image_column: Annotated[
        str | None,
        typer.Option(help="Of a table, the encoded images. [default: the one that can be]"),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Of a table, the ids. [default: TABLE#ROW]")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster, as host:6379 or auto. [default: this machine]"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes. [default: one per GPU, or per core / threads]"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Per process. [default: 1, on a GPU 8, which decode]"),
    ] = None,
) -> None:
    """Explain any number of images into a Parquet table, each exactly once.

    \b
        onnxplain batch model.explain.onnx photos/ -o photos.explained
        onnxplain batch model.explain.onnx 'shards/*.tar' -o why --store heatmap
        onnxplain batch model.explain.onnx table.parquet --id-column url -o why
        onnxplain batch /lake/model.onnx /lake/in -o /lake/out --address auto

    Killed or interrupted, give the same command again: it goes on where it was, and the table
    becomes what it would have been. An image that cannot be read is a row with its error, and the
    exit status is 1. With a cluster, every machine needs onnxplain and the same paths.

    The table is OUT/table; OUT/manifest.json has the files' checksums once all are there. Read it
    with anything that reads Parquet; the pullback of a row is pullback_scale × pullback:

    \b
        table = pyarrow.parquet.read_table("photos.explained/table")
    """
    from onnxplain.batch import Columns, Options, Pool, explain_lake

    options = Options(
        target=as_target(target),
        top=top,
        store=store,
        temperature=temperature,
        provider=provider,
        precision=precision,
        batch_size=batch_size,
        shard_size=shard_size,
        columns=Columns(image_column, id_column),
    )
    pool = Pool(address, workers, threads)
    with rate_bar() as bar:
        task = bar.add_task("listing", total=None, rate="")
        meter = Meter()

        def explained(done: int, images: int) -> None:
            rate = meter.rate(done)
            text = f"{rate:.1f} images/s" if rate else "starting"
            bar.update(task, description="explaining", completed=done, total=images, rate=text)

        summary = explain_lake(
            model,
            inputs,
            folder,
            options,
            pool,
            listed=lambda count: bar.update(task, completed=count),
            progress=explained,
        )
    rate = meter.rate(summary.images)
    out.print(
        f"{folder}  {summary.images - summary.errors} of {summary.images} images explained"
        + (f", {summary.earlier} of them earlier" if summary.earlier else "")
        + (f"; {rate:.1f} images/s" if rate else ""),
        highlight=False,
        soft_wrap=True,
    )
    if summary.errors:
        err.print(
            f"{summary.errors} image{'s' if summary.errors > 1 else ''} could not be explained; "
            "the table's column error says why",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
