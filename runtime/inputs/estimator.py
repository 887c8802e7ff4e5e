"""The images that an estimator takes besides the one that is explained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnxplain.contract.estimator import EstimatorInput
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.signature import Signature


def estimator_inputs(
    signature: Signature, given: Mapping[str, Any], images: int, unread: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """What the estimator takes, normalised: [N, …] each, or a set [B, …], by name.

    Args:
        given: by name, images as `Explainer.__call__` takes them; others' inputs are passed over.
        unread: the names of those that are neither looked at nor returned.

    Raises:
        InputError: one is missing, or cannot be used.
    """
    estimated, pre = signature.metadata.estimator, signature.metadata.preprocessing
    found = {}
    for name, one in estimated.inputs.items():
        if name in unread:
            continue
        value = given.get(name)
        if value is None:
            raise InputError(f"estimator {estimated.name!r} needs {name!r}: {one.meaning}")
        if not one.several and (number := _number(value)) not in (0, 1, images):
            raise InputError(
                f"{name!r} ({one.meaning}) is one image, or {images} for {images} images, not "
                f"{number}"
            )
        batch = _as_batch(name, one, value, pre, signature.dtype)
        if not one.several:
            batch = np.ascontiguousarray(np.broadcast_to(batch, (images, *batch.shape[1:])))
        found[name] = batch
    return found


def decoded_once(metadata: Metadata, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, by name: what the estimator takes as arrays, to be decoded once for many.

    Normalised floats stay as they are; everything else becomes float32 [B, …].

    Raises:
        InputError: an image cannot be used.
    """
    pre, found = metadata.preprocessing, dict(given)
    for name, one in metadata.estimator.inputs.items():
        value = given.get(name)
        if value is not None and not (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            found[name] = _as_batch(name, one, value, pre, np.float32)
    return found


def _as_batch(
    name: str, one: EstimatorInput, value: Any, pre: Preprocessing, dtype: DTypeLike
) -> NDArray[Any]:
    """An array that is the network's input already is returned itself."""
    is_batch = isinstance(value, np.ndarray) and value.size > 0 and value.dtype == dtype
    if is_batch and pre.takes(value.shape[1:]) and np.isfinite(value).all():
        return value
    try:
        return as_batch(value, pre, dtype)[0]
    except InputError as error:
        raise InputError(f"{name!r} ({one.meaning}): {error}") from error


def _number(images: Any) -> int:
    """How many images are given, before any is decoded."""
    items = images if isinstance(images, (list, tuple)) else [images]
    return sum(len(i) if isinstance(i, np.ndarray) and i.ndim == 4 else 1 for i in items)


def noise_for(signature: Signature, images: int) -> dict[str, NDArray[Any]]:
    """The same for noise to be explained: noise for each image, and a set of one."""
    random, shape = np.random.default_rng(2), signature.metadata.preprocessing.image_shape
    return {
        name: random.standard_normal((1 if one.several else images, *shape))
        for name, one in signature.metadata.estimator.inputs.items()
    }
