"""The command `onnxplain build`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from onnxplain.cli.app import Model, as_numbers, command, err, out
from onnxplain.errors import InputError


@command
def build(
    model: Model,
    path: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The engine file; by default beside the graph."),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(
            help="tensorrt-rtx: on any machine, for the GPUs that --sm names. tensorrt: for the "
            "GPU of this one."
        ),
    ] = "tensorrt-rtx",
    sm: Annotated[
        str | None,
        typer.Option(
            help="Compute capabilities of the GPUs it is to run on: 86 is GeForce 30, 89 GeForce "
            "40 and L4, 120 GeForce 50. By default 80,86,89,120; one more costs next to nothing."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="float32, tf32, float16, bfloat16; or int8 for a network quantised already."
        ),
    ] = "float32",
    batch: Annotated[
        str,
        typer.Option(help="Images per run: smallest,usual,largest; or one number for always."),
    ] = "1,8,64",
    targets: Annotated[
        str, typer.Option(help="Targets per image, of a graph exported with --multi-target.")
    ] = "1,2,16",
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Let its weights be replaced. Needs the GPU.")
    ] = False,
    portable: Annotated[
        bool,
        typer.Option("--portable", help="With tensorrt: for any GPU from Ampere on, but slower."),
    ] = False,
) -> None:
    """Compile an explain graph into an engine of TensorRT, which needs no compiling where it runs.

    With tensorrt-rtx no GPU is needed here. An engine holds all that the graph says, and runs with
    the package version that built it: onnxplain run-engine, or onnxplain.load("….engine").

    \b
        onnxplain build resnet50.explain.onnx                      # resnet50.explain.engine
        onnxplain build resnet50.explain.onnx --sm 89,120 --precision float16 --batch 1,8,64
        onnxplain build resnet50.explain.onnx --provider tensorrt  # for this machine's GPU
    """
    from onnxplain.runtime.sessions.tensorrt import PROVIDERS, SUFFIX, build_engine

    if provider not in PROVIDERS:
        raise InputError(f"no provider {provider!r} to build for; known: {', '.join(PROVIDERS)}")
    path = model.with_suffix(SUFFIX) if path is None else path
    if not path.parent.is_dir():
        raise InputError(f"cannot write '{path}': there is no folder '{path.parent}'")
    start = time.perf_counter()
    with _bar() as bar:
        task = bar.add_task(f"compiling {model.name}", total=1.0)
        engine = build_engine(
            model,
            provider=provider,
            sm=None if sm is None else as_numbers(sm, "--sm"),
            precision=precision,
            batches=as_numbers(batch, "--batch"),
            targets=as_numbers(targets, "--targets"),
            refittable=refittable,
            portable=portable,
            progress=lambda done: bar.update(task, completed=done),
        )
    seconds = time.perf_counter() - start
    engine.write(path)
    gpus = f"{engine.gpu}, " if engine.gpu else ""
    out.print(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {precision}, for {gpus}SM "
        f"{', '.join(map(str, engine.sms))}, by {provider} {engine.version} in {seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
