"""The command `onnxplain export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from onnxplain.cli.app import command
from onnxplain.cli.console import err, out
from onnxplain.cli.options import Size, Weights, as_floats, as_size
from onnxplain.cli.progress import progress_bar
from onnxplain.errors import InputError
from onnxplain.files import size_on_disk


@command
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A file (.onnx; TorchScript .pt; torch.export .pt2), a folder of a Hugging Face "
            "classifier, or a name: torchvision's `resnet50`, timm's `timm/pvt_v2_b1`, "
            "`efficientnet-lite0`."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write. [default: NAME.explain.onnx]"),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="excitation (ReLU networks), semantic (any: transformers, SiLU, norms), gradient, "
            "guided, deconvnet, input-x-gradient, gradcam, layercam, hirescam, lrp-zplus, "
            "lrp-epsilon or epsilon-plus."
        ),
    ] = "excitation",
    temperature: Annotated[
        str | None,
        typer.Option(
            help="How soft the gates are: for excitation T, 0.3 unless given; for semantic a "
            "factor on the paper's temperatures, 1 unless given. `auto` finds it on --images, "
            "as `onnxplain tune` does."
        ),
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(help="For --temperature auto: files, folders, patterns.")
    ] = None,
    weights: Weights = "DEFAULT",
    size: Size = None,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, of pixels in [0, 1]: `0.5,0.5,0.5`.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Class names: a text file, one a line, or a JSON list.")
    ] = None,
    multi_target: Annotated[
        bool, typer.Option(help="Explain K targets of each image from one forward pass.")
    ] = False,
    live_temperature: Annotated[
        bool, typer.Option(help="Make the temperature an input of the graph.")
    ] = False,
    step: Annotated[
        bool, typer.Option("--step", help="Add a step of the ascent: next_image from image.")
    ] = False,
    unroll: Annotated[
        int | None,
        typer.Option(help="Instead of explaining, accentuate in one call of this many steps."),
    ] = None,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Keep the operations that have CUDA kernels as function calls in the file.",
        ),
    ] = False,
    input_name: Annotated[
        str | None, typer.Option("--input", help="The image input, where a file has several.")
    ] = None,
    output_name: Annotated[
        str | None, typer.Option("--output", help="The logits, where a file has several outputs.")
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="For gradcam, layercam and hirescam: the layer to look at, a PyTorch module's "
            "path or the name of an ONNX value or node. [default: the last with height and width]"
        ),
    ] = None,
) -> None:
    """Compile a network into an explain graph.

    \b
        onnxplain export resnet50                    # pretrained, torchvision's
        onnxplain export resnet50 --weights finetuned.pth -o mine.explain.onnx
        onnxplain export timm/pvt_v2_b1 --method semantic
        onnxplain export timm/resnet50.a1_in1k --weights none       # untrained
        onnxplain export ./my_vit/                   # of save_pretrained
        onnxplain export classifier.onnx             # needs no PyTorch
        onnxplain export scripted.pt --size 224      # of torch.jit.save
        onnxplain export program.pt2                 # of torch.export.save
        onnxplain export efficientnet-lite0 --temperature 1
        onnxplain export resnet50 --method gradcam --layer layer4

    What is there as a file or folder is read; anything else is a name. A module in memory goes
    through Python: onnxplain.export(module, "mine.explain.onnx", example=x).
    """
    from onnxplain.export import pipeline

    path = output or Path(f"{_stem(source)}.explain.onnx")
    with progress_bar() as progress:
        task = progress.add_task(pipeline.STAGES[0], total=len(pipeline.STAGES))
        begun: list[str] = []

        def begin(stage: str) -> None:
            progress.update(task, description=stage, completed=len(begun))
            begun.append(stage)

        options: dict[str, Any] = {
            "method": method,
            "weights": weights,
            "size": as_size(size),
            "mean": as_floats(mean, "--mean"),
            "std": as_floats(std, "--std"),
            "labels": _labels(labels),
            "input": input_name,
            "output": output_name,
            "layer": layer,
        }
        metadata = pipeline.export(
            source,
            path,
            temperature=_temperature(temperature, source, images, options, progress),
            multi_target=multi_target,
            live_temperature=live_temperature,
            step=step,
            unroll=unroll,
            kernels=kernels,
            progress=begin,
            **options,
        )
        progress.update(task, description="done", completed=len(pipeline.STAGES))
    cost = metadata.multiply_adds["explain"] / max(metadata.multiply_adds["forward"], 1)
    out.print(
        f"{path}  {size_on_disk(path) / 2**20:.1f} MiB, {metadata.described_method}, "
        f"{cost:.2f} × the forward's multiply-adds",
        highlight=False,
        soft_wrap=True,
    )
    for note in metadata.notes:
        err.print(f"note: {escape(note)}", soft_wrap=True, highlight=False)


def _stem(source: str) -> str:
    """What a source is called, for the file made of it."""
    from onnxplain.export.sources.source import FILES

    name = Path(source).resolve().name if Path(source).is_dir() else Path(source).name
    return Path(name).stem if name.endswith(FILES) else name


def _temperature(
    text: str | None,
    source: str,
    images: list[str] | None,
    options: dict[str, Any],
    progress: Progress,
) -> float | None:
    if text != "auto":
        numbers = as_floats(text, "--temperature")
        return None if numbers is None else numbers[0]
    if not images:
        raise InputError("--temperature auto needs photographs to tune on: --images FOLDER")
    from onnxplain.runtime import find_images
    from onnxplain.runtime.tune import TEMPERATURES
    from onnxplain.tuning import tune_source

    task = progress.add_task("tuning", total=len(TEMPERATURES))
    tuning = tune_source(
        source,
        find_images(images),
        progress=lambda done: progress.update(task, completed=done),
        **options,
    )
    return tuning.temperature


def _labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        return (
            [str(name) for name in json.loads(text)]
            if path.suffix == ".json"
            else text.splitlines()
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the labels in {path}: {error}") from error
