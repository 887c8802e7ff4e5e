"""The application: what every command shares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from onnxplain.errors import BackendError, InputError, OnnxplainError
from onnxplain.version import __version__

app = typer.Typer(
    name="onnxplain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Compile a network into a network that explains itself.

One standard ONNX graph: image and target class in, logits [bold]and[/] the picture of why out.

\b
    onnxplain demo                                   # see it work
    onnxplain export resnet50                        # or a checkpoint, or your .onnx file
    onnxplain explain resnet50.explain.onnx cat.jpg  # explanations/cat.png""",
)

out = Console()
err = Console(stderr=True)

INTERRUPTED = 130

EXTRAS = {
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "torch": "torch",
    "torchvision": "torch",
    "timm": "zoo",
    "transformers": "zoo",
    "matplotlib": "plot",
    "skimage": "demo",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "ray": "batch",
    "pyarrow": "batch",
    "av": "stream",
    "tensorboard": "signal",
    "sklearn": "signal",
}
"""Packages that not every installation has → the extra that brings them."""


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become a sentence and an exit status."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except OnnxplainError as error:
            err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(error.exit_code) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            err.print(
                f"[bold red]error:[/] this needs the package {package}: "
                f"pip install 'onnxplain\\[{EXTRAS[package]}]'",
                soft_wrap=True,
                highlight=False,
            )
            raise typer.Exit(BackendError.exit_code) from None
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return run


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a guarded command."""
    run = guarded(function)
    app.command(no_args_is_help=function.__name__ not in ("demo", "doctor", "bench"))(run)
    return run


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"onnxplain {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Model = Annotated[Path, typer.Argument(help="An explain graph, made by `onnxplain export`.")]
Images = Annotated[list[str], typer.Argument(help="Image files, folders and glob patterns.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="A class index or name; -1 the predicted class (the default), -2 the runner-up. "
        "Give it again for more.",
    ),
]
Temperature = Annotated[
    float | None, typer.Option(help="For a graph exported with --live-temperature.")
]
Provider = Annotated[
    str,
    typer.Option(
        help="What runs the graph: auto, cpu, openvino, cuda, ort-tensorrt, tensorrt or "
        "tensorrt-rtx; `onnxplain doctor` says which of them are here."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, tf32, float16, bfloat16 or int8, as the provider has them; or auto, the "
        "fastest whose explanations agree with float32's."
    ),
]
AtLeast = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        help="The cosine to float32 on the CPU that a precision must have. "
        "[default: 0.9999 for float32, 0.99 for halves]",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="For a network by name: DEFAULT (pretrained), none (random, from a fixed seed), or "
        "the path of a checkpoint (with or without `module.` prefixes)."
    ),
]


Size = Annotated[
    str | None,
    typer.Option(help="The image's size in pixels, `224` or `224x320` (height x width)."),
]
GraphProvider = Annotated[
    str, typer.Option(help="What runs the graphs: auto, cpu, openvino, cuda or ort-tensorrt.")
]


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


def as_target(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def as_numbers(text: str, option: str) -> list[int]:
    """What an option gives as numbers with commas between.

    Raises:
        InputError: it is something else, or a number below 1.
    """
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} takes numbers from 1 on with commas between, not {text!r}")
    return numbers


def as_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--size is `224` or `224x320`, not {text!r}")
    return int(parts[0]), int(parts[-1])
