"""Arguments and options that several commands share, and how their text is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxplain.contract.request import ExportOptions
from onnxplain.errors import InputError
from onnxplain.options import declared

_EXPORT = declared(ExportOptions)


def count(help: str, **options: Any) -> Any:
    """An option that is a whole number from 1 up."""
    return typer.Option(min=1, help=help, **options)


Model = Annotated[Path, typer.Argument(help="An explain graph, made by `onnxplain export`.")]
ModelOrNetwork = Annotated[
    Path,
    typer.Argument(
        help="An explain graph, made by `onnxplain export`; or a network's name, as for that.",
        metavar="MODEL",
    ),
]
Source = Annotated[
    str, typer.Argument(help="A network, as for `onnxplain export`: a name, or a file.")
]
Images = Annotated[list[str], typer.Argument(help="Image files, folders and glob patterns.")]
Target = Annotated[
    str,
    typer.Option(
        "--target", "-t", help="A class index or name; -1 the predicted class, -2 the runner-up."
    ),
]
UsualTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="A class index or name; -1 the predicted class, -2 the runner-up. Of a detector, -1 "
        "the best object.",
        show_default="what the file explains by itself",
    ),
]
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
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        help="For a graph exported with --live: a parameter, relu=0.5. Give it again for more.",
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        envvar="ONNXPLAIN_PROVIDER",
        help="What runs the graph: auto, cpu, openvino, cuda, ort-tensorrt, tensorrt or "
        "tensorrt-rtx; `onnxplain doctor` says which of them are here.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="ONNXPLAIN_PRECISION",
        help="float32, tf32, float16, bfloat16 or int8, as the provider has them; or auto, the "
        "fastest whose explanations agree with float32's.",
    ),
]
AtLeast = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        help="The cosine to float32 on the CPU that a precision must have.",
        show_default="0.9999 for float32, 0.99 for halves",
    ),
]
BatchSize = Annotated[
    int | None,
    count("Images per run of the graph.", show_default="4, on a GPU 32"),
]
Weights = Annotated[str, typer.Option(help=_EXPORT["weights"].help)]
Size = Annotated[str | None, typer.Option(help=_EXPORT["size"].help)]


def as_target(text: str) -> int | str:
    """A class index where the text is a number, and otherwise a class name."""
    try:
        return int(text)
    except ValueError:
        return text


def as_integers(text: str, option: str) -> list[int]:
    """An option's positive integers, separated by commas.

    Raises:
        InputError: it is something else, or a number below 1.
    """
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} takes numbers from 1 up, separated by commas, not {text!r}")
    return numbers


def as_names(given: list[str] | None) -> list[str] | None:
    """An option's names, separated by commas or each behind an option of its own; None where it was
    not given."""
    return [name.strip() for text in given for name in text.split(",")] if given else None


def as_floats(text: str | None, option: str) -> tuple[float, ...] | None:
    """An option's numbers, separated by commas; None where it was not given.

    Raises:
        InputError: it is something else.
    """
    try:
        return None if text is None else tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{option} takes numbers separated by commas, not {text!r}") from None


def as_size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """Height and width; None where the option was not given.

    Raises:
        InputError: it is no size.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} is `224` or `224x320`, not {text!r}")
    return int(parts[0]), int(parts[-1])
