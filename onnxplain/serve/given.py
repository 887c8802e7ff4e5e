"""What an objective takes besides image and target, from what a request has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.objective import MASK
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.objective import as_inputs, as_mask, as_numbers, on_photograph
from onnxplain.serve.pictures import check_resized, open_image

Given: TypeAlias = str | bytes | list[Any] | float | NDArray[Any]
"""Text of a form; a picture; or numbers."""


def own_inputs(
    given: Mapping[str, Given],
    explainer: Explainer,
    size: tuple[int, int] | None,
    rows: int,
    most_pixels: int,
) -> dict[str, NDArray[Any]]:
    """The graph's inputs, [rows, …] by name, the same in each row.

    Args:
        given: by name, of one image.
        size: the photograph's width and height, in whose pixels boxes are; None of a tensor.
        rows: how many.
        most_pixels: of a picture.

    Raises:
        InputError: what cannot be used.
        Refusal: a picture of too many pixels.
    """
    read = {name: _read(name, value, explainer, most_pixels) for name, value in given.items()}
    if size is not None:
        read = on_photograph(explainer.metadata, read, size)
    one = as_inputs(explainer.backend.signature, read, 1)
    return {name: np.broadcast_to(array, (rows, *array.shape[1:])) for name, array in one.items()}


def _read(name: str, value: Given, explainer: Explainer, most_pixels: int) -> Any:
    metadata = explainer.metadata
    one = metadata.objective.inputs.get(name)
    if one is None or not isinstance(value, bytes | str):
        return value  # of an unknown name `as_inputs` says so
    if isinstance(value, bytes):
        if one.kind != MASK:
            raise InputError(f"{name!r} is no picture, but numbers: {one.meaning}")
        picture = open_image(value, most_pixels)
        check_resized((picture.height, picture.width), metadata.preprocessing, most_pixels)
        return as_mask(picture, one, metadata.preprocessing)
    try:
        return as_numbers(value, one)
    except ValueError:
        or_file = ", or as a file, a picture" if one.kind == MASK else ""
        raise InputError(
            f"{name!r} is given as numbers with commas between{or_file}: {one.meaning}"
        ) from None
