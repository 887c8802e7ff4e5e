"""What objective and estimator take besides image and target: from a caller's arrays to the
graph's."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import NO_IMAGE, TARGET, Metadata, Preprocessing
from onnxplain.contract.objective import BOX, CHANNELS, INDEX, MASK, ObjectiveInput
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import as_photograph, box_in_input
from onnxplain.runtime.inputs.estimator import estimator_inputs, noise_for
from onnxplain.runtime.inputs.images import load_image, size_of
from onnxplain.runtime.inputs.stored import stored
from onnxplain.runtime.signature import Signature


def as_inputs(
    signature: Signature,
    given: Mapping[str, Any],
    images: int,
    unread: Collection[str] = (),
) -> dict[str, NDArray[Any]]:
    """What the objective and the estimator take besides image and target, [N, …] by name; a set
    of images for all is [B, …].

    Args:
        given: by name, of one image, [N, …], or one for all images. None, like what is left out,
            stands for the default.
        unread: the names of those that are neither looked at nor returned.

    Raises:
        InputError: an unknown name, one that must be given, or what is of another shape, not
            finite, 0 everywhere where that says nothing, or no such box.
    """
    explained = signature.metadata.objective
    declared = {name: one for name, one in explained.inputs.items() if name != TARGET}
    own = signature.metadata.estimator.inputs
    for name in given:
        if name not in declared and name not in own:
            takes = ", ".join(map(repr, [*declared, *own])) or "no input besides image and target"
            raise InputError(
                f"objective {explained.name!r} has no input {name!r}; it takes {takes}"
            )
    inputs = {}
    for name, one in declared.items():
        if name in unread:
            continue
        value = given.get(name)
        if value is None:
            if one.default is None:
                raise InputError(
                    f"objective {explained.name!r} needs {name!r}: {one.meaning}, of the shape "
                    f"{list(one.shape)}"
                )
            array = np.full((images, *one.shape), one.default)
        else:
            array = _one_each(name, one, value, images)
            if one.kind == BOX:
                for box in array:
                    _check_box(name, box, signature.metadata.preprocessing)
        inputs[name] = _cast(name, array, one, signature)
    return inputs | estimator_inputs(signature, given, images, unread)


def check_inputs(signature: Signature, given: Mapping[str, Any]) -> None:
    """Whether what is given for every photograph can be used; where its boxes may be depends on the
    photograph's size.

    Raises:
        InputError: as `as_inputs`.
    """
    inputs = signature.metadata.objective.inputs
    boxes = {name for name in given if name in inputs and inputs[name].kind == BOX}
    as_inputs(signature, given, 1, unread=boxes)
    for name in boxes:
        if given[name] is not None:
            _one_each(name, inputs[name], given[name], 1)


def stacked(
    signature: Signature, each: Sequence[Mapping[str, NDArray[Any]]], rows: int = 1
) -> dict[str, NDArray[Any]]:
    """The inputs of several images as one run takes them.

    Args:
        each: as `as_inputs` makes them of one image.
        rows: how often each image is explained.
    """
    sets = {name for name, one in signature.metadata.estimator.inputs.items() if one.several}
    return {
        name: first
        if name in sets
        else np.concatenate([one[name] for one in each]).repeat(rows, axis=0)
        for name, first in each[0].items()
    }


def repeated(
    signature: Signature, given: Mapping[str, Any], images: int, times: int
) -> dict[str, Any]:
    """What is given for some images, for as many of each of them, one after another.

    Args:
        given: as for `as_inputs`, to which the result can be given again.

    Raises:
        InputError: as `as_inputs`.
    """
    found = as_inputs(signature, given, images)
    sets = {name for name, one in signature.metadata.estimator.inputs.items() if one.several}
    return {
        name: found[name] if name in sets else found[name].repeat(times, axis=0)
        for name, value in given.items()
        if value is not None
    }


def on_photographs(
    metadata: Metadata, given: Mapping[str, Any], photographs: Sequence[str | os.PathLike[str]]
) -> dict[str, Any]:
    """The same as `on_photograph` of several, [N, …] where it is a box.

    Raises:
        InputError: as `on_photograph`; or a photograph that cannot be read.
    """
    placed, inputs = dict(given), metadata.objective.inputs
    for name, value in given.items():
        if name in inputs and inputs[name].kind == BOX:
            each = [on_photograph(metadata, {name: value}, size_of(one)) for one in photographs]
            placed[name] = np.stack([one[name] for one in each])
    return placed


def _cast(
    name: str, array: NDArray[Any], one: ObjectiveInput, signature: Signature
) -> NDArray[Any]:
    """As the graph takes it; a mask, whose scale tells nothing, is 1 at most.

    Raises:
        InputError: its dtype cannot hold it.
    """
    if one.kind == INDEX:
        return array.astype(np.int64)
    if one.kind == MASK and array.any():
        array = array / array.max(axis=tuple(range(1, array.ndim)), keepdims=True)
    with np.errstate(over="ignore"):
        cast = array.astype(signature.dtype)
    if not np.isfinite(cast).all() or (array.any() and not cast.any()):
        raise InputError(f"{name!r} has numbers that {signature.dtype} cannot hold")
    return cast


def _one_each(name: str, one: ObjectiveInput, value: Any, images: int) -> NDArray[Any]:
    try:
        if np.iscomplexobj(value):
            raise TypeError("of which only the real parts would be left")
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name!r} is an array of numbers: {one.meaning}") from None
    shape = list(one.shape)
    if one.kind == CHANNELS and np.asarray(value).dtype.kind in "iu":
        array = _chosen(name, one, np.asarray(value))
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
    if one.nonzero and not array.reshape(images, -1).any(axis=1).all():
        left_out = "" if one.default is None else "; leave it out for that"
        raise InputError(f"{name!r} is 0 everywhere: {one.meaning}{left_out}")
    return array


def _chosen(name: str, one: ObjectiveInput, indices: NDArray[Any]) -> NDArray[Any]:
    """1 for each channel of these indices, 0 for the others."""
    (count,) = one.shape
    if indices.ndim > 1 or not ((indices >= 0) & (indices < count)).all():
        raise InputError(
            f"{name!r} ({one.meaning}) are indices from 0 to {count - 1}, the same for all images; "
            f"or floats, {count} for each"
        )
    return np.isin(np.arange(count), indices).astype(float)


def _check_box(name: str, box: NDArray[Any], pre: Preprocessing) -> None:
    left, top, right, bottom = box.tolist()
    if not box.any():
        return
    if pre == NO_IMAGE:
        raise InputError(
            f"{name!r} lies in an image, and this file explains by other values: leave it out"
        )
    inside = pre.any_size or (right <= pre.width and bottom <= pre.height)
    if not (0 <= left < right and 0 <= top < bottom and inside):
        raise InputError(
            f"{name!r} is left, top, right, bottom in pixels of the network's input, within "
            f"{pre.width} × {pre.height}; not {left:g}, {top:g}, {right:g}, {bottom:g}"
        )


def noise_inputs(signature: Signature, images: int) -> dict[str, NDArray[Any]]:
    """The same for noise to be explained: where something must be given, seeded noise, the first of
    indices, the whole image as a box, and everywhere as a region."""
    random, pre = np.random.default_rng(1), signature.metadata.preprocessing
    given: dict[str, Any] = {}
    for name, one in signature.metadata.objective.inputs.items():
        if one.default is None:
            noise = random.standard_normal((images, *one.shape))
            whole = {INDEX: 0 * noise, MASK: 0 * noise + 1, BOX: [0, 0, pre.width, pre.height]}
            given[name] = whole.get(one.kind, noise)
    return as_inputs(signature, given | noise_for(signature, images), images)


def read_input(name: str, text: str, metadata: Metadata) -> Any:
    """An input of an objective or an estimator as the command line has it.

    Args:
        text: of an estimator, paths of photographs with commas between. Of an objective, numbers
            with commas between; the path of a `.npy` file; or of a mask the path of a picture,
            which is cropped as the photographs are: bright inside, dark outside.

    Raises:
        InputError: no such input, or it cannot be read.
    """
    explained, pre = metadata.objective, metadata.preprocessing
    if name in metadata.estimator.inputs:
        return text.split(",")
    if name not in explained.inputs:
        takes = ", ".join(map(repr, [*explained.inputs, *metadata.estimator.inputs])) or "no inputs"
        raise InputError(f"objective {explained.name!r} has no input {name!r}; it takes {takes}")
    one = explained.inputs[name]
    if text.endswith(".npy"):
        try:
            return np.asarray(stored(text))
        except InputError as error:
            raise InputError(f"cannot read {name!r}: {error}") from error
    if one.kind == MASK:
        return as_mask(load_image(text), one, pre)
    try:
        return as_numbers(text, one)
    except ValueError:
        raise InputError(
            f"{name!r} is given as numbers with commas between, or as a .npy file, not {text!r}"
        ) from None


def as_mask(picture: Image.Image, one: ObjectiveInput, pre: Preprocessing) -> NDArray[Any]:
    """A picture of a region, cropped as the photographs are: bright inside, dark outside.

    Raises:
        InputError: the file explains by other values than an image.
    """
    height, width = one.shape
    if pre == NO_IMAGE:
        raise InputError(
            "a picture of a region is cropped as the image is, and this file explains by other "
            f"values: give the region as an array [{height}, {width}], or its .npy file"
        )
    seen = as_photograph(picture, pre).convert("L")
    return (np.asarray(seen.resize((width, height), Image.Resampling.BOX)) > _BRIGHT).astype(float)


def as_numbers(text: str, one: ObjectiveInput) -> NDArray[Any]:
    """Numbers with commas between; one alone where the input is one.

    Raises:
        ValueError: it is something else.
    """
    numbers = [float(number) for number in text.split(",")]
    if one.kind == CHANNELS and all(number.is_integer() for number in numbers):
        return np.array(numbers, np.int64)
    return np.array(numbers[0] if one.shape == () and len(numbers) == 1 else numbers)


def on_photograph(
    metadata: Metadata, given: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, Any]:
    """What is given for one photograph, its boxes in pixels of the network's input.

    Args:
        given: by name, a box in the photograph's own pixels.
        size: the photograph's width and height.

    Raises:
        InputError: a box that does not lie in it, or that the network does not see.
    """
    inputs, placed = metadata.objective.inputs, dict(given)
    for name, value in given.items():
        if name in inputs and inputs[name].kind == BOX and value is not None:
            try:
                box = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                continue  # which `as_inputs` refuses
            if box.shape in ((4,), (1, 4)) and np.isfinite(box).all() and box.any():
                held = metadata.pixels.held(size)
                if (box.reshape(-1)[2:] <= size).all():
                    box = np.minimum(box, [*held, *held])
                placed[name] = box_in_input(box.reshape(4), held, metadata.preprocessing)
    return placed


_BRIGHT = 127
