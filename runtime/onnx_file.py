"""The little of an ONNX file that must be read without a runtime and without `onnx`.

ONNX is protocol buffers; of `onnx.proto` only the field numbers below are used.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from onnxplain.contract.explain import KERNELS_DOMAIN
from onnxplain.errors import BackendError
from onnxplain.runtime.signature import Port

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_OPERATOR, _NODE_DOMAIN, _TENSOR_EXTERNAL = 4, 7, 13
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR = 1, 2, 1
_TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIMENSION, _DIMENSION_SIZE = 1, 2, 1, 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_DTYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64"},
    **{9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16"},
}
"""TensorProto.DataType → numpy's names."""

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


def operators(path: Path) -> Counter[str]:
    """How many nodes of each operator the graph has, apart from those of subgraphs.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        return Counter(
            data[start:end].decode()
            for graph in _inside(data, (0, len(data)), _MODEL_GRAPH)
            for node in _inside(data, graph, _GRAPH_NODE)
            for start, end in _inside(data, node, _NODE_OPERATOR)
        )


def kernel_calls(path: Path) -> Counter[str]:
    """How many calls of each fused operation the graph has (`export --kernels`).

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        return Counter(
            _text(data, node, _NODE_OPERATOR).partition("_")[0]
            for graph in _inside(data, (0, len(data)), _MODEL_GRAPH)
            for node in _inside(data, graph, _GRAPH_NODE)
            if _text(data, node, _NODE_DOMAIN) == KERNELS_DOMAIN
        )


def read_ports(path: Path) -> tuple[dict[str, Port], dict[str, Port]]:
    """The graph's inputs and outputs by name, in its order.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        graph = next(_inside(data, (0, len(data)), _MODEL_GRAPH), None)
        inputs, outputs = (
            {} if graph is None else dict(_port(data, span) for span in _inside(data, graph, end))
            for end in (_GRAPH_INPUT, _GRAPH_OUTPUT)
        )
        return inputs, outputs


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
    return _text(data, span, _ENTRY_KEY), _text(data, span, _ENTRY_VALUE)


def _port(data: mmap.mmap, span: _Span) -> tuple[str, Port]:
    """A ValueInfoProto; a dimension without a size is open, a value without a shape a scalar."""
    name = _text(data, span, _VALUE_NAME)
    tensors = [
        tensor
        for type_ in _inside(data, span, _VALUE_TYPE)
        for tensor in _inside(data, type_, _TYPE_TENSOR)
    ]
    elements = [code for tensor in tensors for code in _numbers(data, tensor, _TENSOR_ELEMENT)]
    shape = tuple(
        next(_numbers(data, dimension, _DIMENSION_SIZE), None)
        for tensor in tensors
        for shape in _inside(data, tensor, _TENSOR_SHAPE)
        for dimension in _inside(data, shape, _SHAPE_DIMENSION)
    )
    return name, Port(_DTYPES.get(elements[0], "unknown") if elements else "unknown", shape)


def _text(data: mmap.mmap, span: _Span, wanted: int) -> str:
    return "".join(data[a:b].decode() for a, b in _inside(data, span, wanted))


def _inside(data: mmap.mmap, span: _Span, wanted: int) -> Iterator[_Span]:
    """Where the length-delimited fields of that number lie in the message at `span`."""
    for number, found in _fields(data, span):
        if number == wanted and isinstance(found, tuple):
            yield found


def _numbers(data: mmap.mmap, span: _Span, wanted: int) -> Iterator[int]:
    """The values of the integer fields of that number in the message at `span`."""
    for number, found in _fields(data, span):
        if number == wanted and isinstance(found, int):
            yield found


def _fields(data: mmap.mmap, span: _Span) -> Iterator[tuple[int, int | _Span | None]]:
    """Each field's number, and its value if it is an integer, where it lies if it has a length."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        found: int | _Span | None = None
        if wire == _VARINT:
            found, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field reaches beyond its message")
            found, at = (at, at + length), at + length
        else:
            at += _WIDTH.get(wire, 0)
            if wire not in _WIDTH or number == 0:
                raise ValueError("not a protocol buffer")
        yield number, found


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
