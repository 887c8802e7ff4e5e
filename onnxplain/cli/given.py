"""What an objective takes besides image and target, as options of several commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxplain.errors import InputError

if TYPE_CHECKING:
    from onnxplain.contract.explain import Metadata

Region = Annotated[
    str | None,
    typer.Option(help="Of a map: a picture of where to look, bright inside; or a .npy file."),
]
Query = Annotated[
    str | None, typer.Option(help="Of an embedding: the vector to compare with, a .npy file.")
]
Box = Annotated[
    str | None,
    typer.Option(
        help="Of a detector: the object, left,top,right,bottom in pixels of the photograph."
    ),
]
Position = Annotated[int | None, typer.Option(help="Of a sequence: the step, from 0.")]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        help="Another input of the file's objective, direction=-1 or NAME=FILE.npy, or photographs "
        "for its estimator, baselines=a.jpg,b.jpg; `onnxplain info` names them. Give it again for "
        "more.",
    ),
]


def read_inputs(
    metadata: Metadata, named: Mapping[str, str | int | None], given: list[str] | None
) -> dict[str, Any]:
    """What the file's objective takes besides, read once for all images.

    Args:
        named: the options that have a name of their own; None where they were not given.
        given: what `--given` has.

    Raises:
        InputError: one that it does not take, that cannot be read or is given twice.
    """
    from onnxplain.runtime.inputs.objective import read_input

    texts = {name: str(text) for name, text in named.items() if text is not None}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or name in texts:
            raise InputError(f"--given takes NAME=VALUE, each name once, not {text!r}")
        texts[name] = value
    return {name: read_input(name, text, metadata) for name, text in texts.items()}
