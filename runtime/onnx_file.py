"""The little of an ONNX file that must be read without a runtime and without `onnx`.

ONNX is protocol buffers; of `onnx.proto` only the field numbers below are used.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from onnxplain.errors import BackendError

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_GRAPH_INITIALIZER, _TENSOR_EXTERNAL = 5, 13
_TO_DIMENSIONS = (11, 2, 1, 2, 1)  # graph.input, .type, .tensor_type, .shape, .dim
_DIMENSION_NAME = 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}

_Span: TypeAlias = tuple[int, int]


def read_metadata(path: Path) -> dict[str, str]:
    """The file's `metadata_props`.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        return dict(_entry(data, span) for span in _inside(data, (0, len(data)), _MODEL_METADATA))


def has_functions(path: Path) -> bool:
    """Whether nodes of the file call functions of its own.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        return any(True for _ in _inside(data, (0, len(data)), _MODEL_FUNCTIONS))


def has_open_batch(path: Path) -> bool:
    """Whether the first dimension of the first input has a name instead of a number.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        at = next(_inside(data, (0, len(data)), _MODEL_GRAPH), None)
        for field in _TO_DIMENSIONS:
            at = None if at is None else next(_inside(data, at, field), None)
        return at is not None and any(True for _ in _inside(data, at, _DIMENSION_NAME))


def digest(path: Path) -> str:
    """SHA-256 of the file and of the files that hold its external weights, as hexadecimal.

    Raises:
        BackendError: no such file, not an ONNX file, or its external weights are missing.
    """
    with _opened(path) as data:
        locations = {
            value
            for graph in _inside(data, (0, len(data)), _MODEL_GRAPH)
            for tensor in _inside(data, graph, _GRAPH_INITIALIZER)
            for key, value in (_entry(data, s) for s in _inside(data, tensor, _TENSOR_EXTERNAL))
            if key == "location"
        }
        total = hashlib.sha256(data)
    for location in sorted(locations):
        try:
            with (path.parent / location).open("rb") as weights:
                total.update(hashlib.file_digest(weights, "sha256").digest())
        except OSError as error:
            raise BackendError(
                f"'{path}' keeps its weights in '{location}' beside it, which cannot be read "
                f"({error.strerror}); copy the two together"
            ) from error
    return total.hexdigest()


class _opened:  # noqa: N801  (a context manager)
    """The file's bytes, mapped; whatever is wrong with them within is said of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> mmap.mmap:
        try:
            with self._path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise BackendError(f"no such file: '{self._path}'") from None
        except (OSError, ValueError) as error:  # a folder, or a file of no bytes
            raise BackendError(f"'{self._path}' is not an ONNX file: {error}") from error
        return self._data

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._data.close()
        if kind is not None and issubclass(kind, (IndexError, ValueError)):
            raise BackendError(f"'{self._path}' is not an ONNX file, or it is cut short") from None


def _entry(data: mmap.mmap, span: _Span) -> tuple[str, str]:
    """A StringStringEntryProto."""

    def text(number: int) -> str:
        return "".join(data[a:b].decode() for a, b in _inside(data, span, number))

    return text(_ENTRY_KEY), text(_ENTRY_VALUE)


def _inside(data: mmap.mmap, span: _Span, wanted: int) -> Iterator[_Span]:
    """Where the length-delimited fields of that number lie in the message at `span`."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field reaches beyond its message")
            if number == wanted:
                yield at, at + length
            at += length
        else:
            at += _WIDTH.get(wire, 0)
            if wire not in _WIDTH or number == 0:
                raise ValueError("not a protocol buffer")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A base-128 number, the least significant group first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
