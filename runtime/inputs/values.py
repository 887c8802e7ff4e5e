"""Arrays by the names of a network's inputs, held to what the file takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.values import TOKENS, Taken
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.tensors import as_numpy, is_tensor, on_host
from onnxplain.runtime.signature import Port, Signature

_KINDS = {"f": "floats", "i": "whole numbers", "u": "whole numbers", "b": "booleans"}


def as_values(signature: Signature, given: Any) -> dict[str, NDArray[Any]]:
    """What a file that explains by values takes, by name, of the declared dtypes.

    Args:
        given: a mapping of arrays, numpy's or tensors on the host. Floats are converted between
            their precisions, whole numbers and booleans to whatever is declared.

    Raises:
        InputError: no mapping; an input that is missing or that the file has not; arrays of
            another kind, rank or size, or that do not go together; NaN or infinity.
    """
    taken = signature.metadata.values.inputs
    if not isinstance(given, Mapping):
        raise InputError(
            f"this file explains {signature.metadata.values.described}: give its inputs by name, "
            f"as {{{_listing(signature)}}}, not a {type(given).__name__}"
        )
    if unknown := [name for name in given if name not in taken]:
        raise InputError(
            f"the network has no input {unknown[0]!r}; its inputs are {_listing(signature)}"
        )
    if missing := [name for name in taken if name not in given]:
        raise InputError(
            f"the input {_described(missing[0], taken[missing[0]], signature)} is missing"
        )
    arrays = {
        name: _array(name, given[name], one, signature.inputs[name], signature)
        for name, one in taken.items()
    }
    _check_sizes(taken, arrays)
    return arrays


def _listing(signature: Signature) -> str:
    taken = signature.metadata.values.inputs
    return ", ".join(_described(name, one, signature) for name, one in taken.items())


def _described(name: str, one: Taken, signature: Signature) -> str:
    """An input in words: "'ids': int64 [batch, length]"."""
    return f"{name!r}: {signature.inputs[name].dtype} {_sizes(one)}"


def _sizes(one: Taken) -> str:
    return f"[{', '.join(map(str, one.sizes))}]"


def _array(name: str, value: Any, one: Taken, port: Port, signature: Signature) -> NDArray[Any]:
    """
    Raises:
        InputError: as `as_values`.
    """
    what = _described(name, one, signature)
    if is_tensor(value):
        if not on_host(value):
            raise InputError(f"the input {what} lies on a GPU: give tensor.cpu()")
        value = as_numpy(value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"the input {what} is given rows of several lengths: pad them") from None
    wanted = np.dtype(port.dtype)
    floats = array.dtype.kind == "f" and wanted.kind != "f"
    if floats or array.dtype.kind not in _KINDS:
        found = _KINDS.get(array.dtype.kind, array.dtype.name)
        raise InputError(f"the input {what} is given {found}, {array.dtype}")
    fits = len(array.shape) == len(one.sizes) and all(
        isinstance(n, str) or n == own for n, own in zip(one.sizes, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        raise InputError(f"the input {what} is given an array of the shape {list(array.shape)}")
    with np.errstate(over="ignore"):
        cast = array.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(cast).all():
        beyond = f", or beyond {wanted}" if cast.dtype != array.dtype else ""
        raise InputError(f"the input {name!r} has NaN or infinite values{beyond}")
    if wanted.kind in "iub" and (cast != array).any():
        raise InputError(f"the input {what} is given numbers that {wanted} cannot hold")
    return cast


def _check_sizes(taken: Mapping[str, Taken], arrays: Mapping[str, NDArray[Any]]) -> None:
    """
    Raises:
        InputError: sizes of one name differ.
    """
    known: dict[str, tuple[int, str]] = {}
    for name, one in taken.items():
        for size, own in zip(one.sizes, arrays[name].shape, strict=True):
            if not isinstance(size, str):
                continue
            first, where = known.setdefault(size, (own, name))
            if first != own:
                raise InputError(f"{size} is {first} in {where!r}, and {own} in {name!r}")


_LENGTHS = (64, 16, 4, 2, 1)
"""Tried in turn for the open sizes of noise, as networks have a least length, or a greatest."""


def noise_values(signature: Signature) -> list[dict[str, NDArray[Any]]]:
    """Seeded noise of several lengths for the inputs, for a batch of two: tokens of 0 and 1, ones
    for other whole numbers."""
    values = signature.metadata.values
    batch = next(iter(values.inputs.values())).sizes[0]
    made = []
    for length in _LENGTHS:
        random, given = np.random.default_rng(0), {}
        for name, one in values.inputs.items():
            shape = [n if isinstance(n, int) else 2 if n == batch else length for n in one.sizes]
            dtype = np.dtype(signature.inputs[name].dtype)
            floats = random.standard_normal(shape)
            whole = floats > 0 if one.kind == TOKENS else np.ones(shape)
            given[name] = np.asarray(floats if dtype.kind == "f" else whole).astype(dtype)
        made.append(given)
    sizes = {n for one in values.inputs.values() for n in one.sizes if isinstance(n, str)}
    return made if sizes - {batch} else made[:1]
