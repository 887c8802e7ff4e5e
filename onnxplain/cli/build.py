"""The command `onnxplain build`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import file_size, say
from onnxplain.cli.options import Model, as_integers
from onnxplain.cli.progress import percentage_bar
from onnxplain.errors import InputError

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The engine file; by default beside the graph."),
]
Provider = Annotated[
    str,
    typer.Option(
        help="tensorrt-rtx: on any machine, for the GPUs that --sm names. tensorrt: for this "
        "machine's GPU."
    ),
]
ComputeCapabilities = Annotated[
    str | None,
    typer.Option(
        help="Compute capabilities of the GPUs it is to run on: 86 is GeForce 30, 89 GeForce "
        "40 and L4, 120 GeForce 50. By default 80,86,89,120; one more costs next to nothing."
    ),
]
Precision = Annotated[
    str,
    typer.Option(help="float32, tf32, float16, bfloat16; or int8 for a network quantised already."),
]
Batch = Annotated[
    str | None,
    typer.Option(
        help="Images per run: smallest,usual,largest; or one number for always. By default 1,8,64, "
        "and 1 of a graph that takes photographs, of 2 to 4096 pixels a side."
    ),
]
TargetsPerImage = Annotated[
    str, typer.Option(help="Targets per image, for a graph exported with --multi-target.")
]
Refittable = Annotated[
    bool, typer.Option("--refittable", help="Let its weights be replaced. Needs the GPU.")
]
Portable = Annotated[
    bool,
    typer.Option("--portable", help="With tensorrt: for any GPU from Ampere on, but slower."),
]


@command
def build(
    model: Model,
    path: Out = None,
    provider: Provider = "tensorrt-rtx",
    sm: ComputeCapabilities = None,
    precision: Precision = "float32",
    batch: Batch = None,
    targets: TargetsPerImage = "1,2,16",
    refittable: Refittable = False,
    portable: Portable = False,
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
    with percentage_bar() as bar:
        task = bar.add_task(f"compiling {model.name}", total=1.0)
        engine = build_engine(
            model,
            provider=provider,
            sm=None if sm is None else as_integers(sm, "--sm"),
            precision=precision,
            batches=None if batch is None else as_integers(batch, "--batch"),
            targets=as_integers(targets, "--targets"),
            refittable=refittable,
            portable=portable,
            progress=lambda done: bar.update(task, completed=done),
        )
    seconds = time.perf_counter() - start
    engine.write(path)
    gpus = f"{engine.gpu}, " if engine.gpu else ""
    say(
        f"{path}: {file_size(path)}, {precision}, for {gpus}SM "
        f"{', '.join(map(str, engine.sms))}, by {provider} {engine.version} in {seconds:.1f} s"
    )
