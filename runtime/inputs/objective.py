"""What an objective takes besides image and target: from a caller's arrays to the graph's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import TARGET, Preprocessing
from onnxplain.contract.objective import BOX, INDEX, MASK, Explained, ObjectiveInput
from onnxplain.errors import InputError


def as_inputs(
    explained: Explained,
    given: Mapping[str, Any],
    images: int,
    pre: Preprocessing,
    dtype: np.dtype[Any],
) -> dict[str, NDArray[Any]]:
    """The graph's inputs, [N, …] each; those left out are full of what stands for the default.

    Args:
        given: by name, of one image, [N, …], or one for all images.

    Raises:
        InputError: an unknown name, one that must be given, or what is of another shape, not
            finite, or no such box.
    """
    declared = {name: one for name, one in explained.inputs.items() if name != TARGET}
    for name in given:
        if name not in declared:
            takes = ", ".join(map(repr, declared)) or "no input besides image and target"
            raise InputError(
                f"objective {explained.name!r} has no input {name!r}; it takes {takes}"
            )
    inputs = {}
    for name, one in declared.items():
        value = given.get(name)
        if value is None:
            if one.default is None:
                raise InputError(
                    f"objective {explained.name!r} needs {name!r}: {one.meaning}, of the shape "
                    f"{list(one.shape)}"
                )
            value = np.full(one.shape, one.default)
        inputs[name] = _one_each(name, one, value, images, pre).astype(
            np.int64 if one.kind == INDEX else dtype
        )
    return inputs


def _one_each(
    name: str, one: ObjectiveInput, value: Any, images: int, pre: Preprocessing
) -> NDArray[Any]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name!r} is an array of numbers: {one.meaning}") from None
    shape = list(one.shape)
    if list(array.shape) == shape:
        array = np.broadcast_to(array, (images, *shape))
    if list(array.shape) != [images, *shape]:
        raise InputError(
            f"{name!r} ({one.meaning}) has the shape {shape}, or {[images, *shape]} for "
            f"{images} images, not {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name!r} has NaN or infinite values")
    if one.kind == INDEX and (array != np.rint(array)).any():
        raise InputError(f"{name!r} is a whole number: {one.meaning}")
    if one.limit is not None and not ((array >= -1) & (array < one.limit)).all():
        raise InputError(f"{name!r} is from 0 to {one.limit - 1}, or -1: {one.meaning}")
    if one.kind == MASK and (array < 0).any():
        raise InputError(
            f"{name!r} has negative values: it is 0 outside the region, positive inside"
        )
    if one.kind == BOX:
        for box in array:
            _check_box(name, box, pre)
    return array


def _check_box(name: str, box: NDArray[Any], pre: Preprocessing) -> None:
    left, top, right, bottom = box.tolist()
    if not box.any():
        return
    if not (0 <= left < right <= pre.width and 0 <= top < bottom <= pre.height):
        raise InputError(
            f"{name!r} is left, top, right, bottom in pixels of the network's input, within "
            f"{pre.width} × {pre.height}; not {left:g}, {top:g}, {right:g}, {bottom:g}"
        )


def noise_inputs(
    explained: Explained, images: int, pre: Preprocessing, dtype: np.dtype[Any]
) -> dict[str, NDArray[Any]]:
    """The same for noise to be explained: seeded noise where something must be given."""
    random = np.random.default_rng(1)
    given = {
        name: random.standard_normal((images, *one.shape))
        for name, one in explained.inputs.items()
        if one.default is None
    }
    return as_inputs(explained, given, images, pre, dtype)
