"""The command `onnxplain export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from onnxplain.asking import check_asked
from onnxplain.cli.app import command
from onnxplain.cli.console import file_size, say
from onnxplain.cli.export_options import with_export_options
from onnxplain.cli.progress import progress_bar, stages_of
from onnxplain.contract.explain import Metadata
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import InputError
from onnxplain.networks import FILES
from onnxplain.options import declared

AUTO = "auto"
"""The temperature that photographs tell."""


@command
@with_export_options()
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A file (.onnx; TorchScript .pt; torch.export .pt2), a folder of a Hugging Face "
            "classifier, or a name: torchvision's `resnet50`, timm's `timm/pvt_v2_b1`, "
            "`efficientnet-lite0`."
        ),
    ],
    *,
    path: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write.", show_default="NAME.explain.onnx"),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            help=f"{declared(ExportOptions)['temperature'].help} `auto` finds it on --images, as "
            "`onnxplain tune` does."
        ),
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(help="For --temperature auto: files, folders, patterns.")
    ] = None,
    options: ExportOptions,
) -> None:
    """Compile a network into an explain graph.

    \b
        onnxplain export resnet50                    # pretrained, torchvision's
        onnxplain export resnet50 --weights finetuned.pth -o mine.explain.onnx
        onnxplain export timm/pvt_v2_b1 --method semantic
        onnxplain export timm/resnet50.a1_in1k --weights none       # untrained
        onnxplain export ./my_vit/                   # of save_pretrained
        onnxplain export classifier.onnx             # needs no PyTorch
        onnxplain --trust export scripted.pt --size 224      # of torch.jit.save
        onnxplain --trust export program.pt2         # of torch.export.save
        onnxplain export efficientnet-lite0 --temperature 1
        onnxplain export resnet50 --method gradcam --layer layer4

    What is there as a file or folder is read; anything else is a name. A module in memory goes
    through Python: onnxplain.export(module, "mine.explain.onnx", example=x).
    """
    path = path or Path(f"{_stem(source)}.explain.onnx")
    options = replace(options, temperature=_number(temperature, images))
    check_asked(source, path, options)
    import onnxplain
    from onnxplain.export import STAGES

    with progress_bar() as progress:
        begin = stages_of(progress, STAGES)
        if temperature == AUTO:
            options = replace(options, temperature=_tuned(source, images, options, progress))
        metadata = onnxplain.export(source, path, **vars(replace(options, progress=begin)))
        begin("done")
    _tell(path, metadata)


def _tell(path: Path, metadata: Metadata) -> None:
    """What was written."""
    cost = metadata.multiply_adds["explain"] / max(metadata.multiply_adds["forward"], 1)
    say(
        f"{path}  {file_size(path)}, {metadata.described_method}, "
        f"{cost:.2f} × the forward's multiply-adds"
    )


def _stem(source: str) -> str:
    """What a source is called, for the file made of it."""
    name = Path(source).resolve().name if Path(source).is_dir() else Path(source).name
    return Path(name).stem if name.endswith(FILES) else name


def _number(temperature: str | None, images: list[str] | None) -> float | None:
    """The temperature given, None where none is, or photographs are to tell it.

    Raises:
        InputError: it is no number; or there are no photographs.
    """
    if temperature == AUTO and not images:
        raise InputError("--temperature auto needs photographs to tune on: --images FOLDER")
    try:
        return None if temperature in (None, AUTO) else float(temperature)
    except ValueError:
        raise InputError(f"--temperature takes a number or auto, not {temperature!r}") from None


def _tuned(
    source: str, images: list[str] | None, options: ExportOptions, progress: Progress
) -> float | None:
    """The temperature that photographs tell."""
    from onnxplain.runtime import find_images
    from onnxplain.runtime.tune import TEMPERATURES
    from onnxplain.tuning import tune_source

    task = progress.add_task("tuning", total=len(TEMPERATURES))
    tuning = tune_source(
        source,
        find_images(images or []),
        options,
        progress=lambda done: progress.update(task, completed=done),
    )
    return tuning.temperature
