"""The little of an ONNX file that must be read without a runtime and without `onnx`.

ONNX is protocol buffers; of `onnx.proto` only the field numbers below are used. Whatever the file
holds, what a reading costs is bounded: a number's bytes, the fields, the depth of subgraphs and the
length of a text have limits far above what networks need.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from onnxplain.contract.explain import KERNELS_DOMAIN
from onnxplain.contract.nodes import forbidden
from onnxplain.errors import BackendError
from onnxplain.reading import beside, opened
from onnxplain.runtime.signature import Port

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_NODE_DOMAIN, _NODE_ATTRIBUTE = 7, 5
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_ATTRIBUTE_TENSORS, _ATTRIBUTE_SPARSE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (22, 23), (6, 11)
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGERS = 1, (3, 8)
_SPARSE_TENSORS, _TENSOR_EXTERNAL = (1, 2), 13
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

_FIELDS = 2**22  # of a file, a few seconds' worth; a network of 100,000 nodes has a million
_NESTED = 32  # subgraphs within subgraphs
_LONGEST = 10  # bytes of a number of 64 bits
_TEXT = 64 << 20  # bytes

_Span: TypeAlias = tuple[int, int]
_Value = TypeVar("_Value")


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
            operator
            for graph in _inside(data, (0, len(data)), _MODEL_GRAPH)
            for node in _inside(data, graph, _GRAPH_NODE)
            if (operator := _text(data, node, _NODE_OPERATOR))
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
        total = hashlib.sha256(data)
    for file in weights_beside(path):
        with opened(file) as weights:
            total.update(hashlib.file_digest(weights, "sha256").digest())
    return total.hexdigest()


def weights_beside(path: Path) -> list[Path]:
    """The files that hold its external weights, anywhere in it, sorted by their names in it.

    Raises:
        BackendError: no such file, not an ONNX file; or its external weights are missing, are no
            regular files, or lie outside its folder.
    """
    with _opened(path) as data:
        locations = {
            value
            for kind, tensor in _parts(data)
            if kind == _TENSOR
            for key, value in (_entry(data, s) for s in _inside(data, tensor, _TENSOR_EXTERNAL))
            if key == "location"
        }
    files = []
    for location in sorted(locations):
        try:
            files.append(beside(path, location))
        except (OSError, ValueError) as error:  # ValueError: a null byte
            reason = getattr(error, "strerror", None) or error
            raise BackendError(
                f"'{path}' keeps its weights in {location!r} beside it, which cannot be read "
                f"({reason}); copy the two together"
            ) from error
    return files


class Node(NamedTuple):
    """A node of the graph: its operator, its name, and those of its inputs and outputs."""

    operator: str
    name: str
    inputs: list[str]
    outputs: list[str]


def nodes(path: Path) -> list[Node]:
    """The graph's nodes in its order, apart from those of subgraphs.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        return [
            Node(
                _text(data, node, _NODE_OPERATOR),
                _text(data, node, _NODE_NAME),
                *([data[a:b].decode() for a, b in _inside(data, node, end)] for end in _ENDS),
            )
            for graph in _inside(data, (0, len(data)), _MODEL_GRAPH)
            for node in _inside(data, graph, _GRAPH_NODE)
        ]


_ENDS = (_NODE_INPUT, _NODE_OUTPUT)


def with_outputs(path: Path, names: Iterable[str]) -> bytes:
    """The model with the values of these names put out too.

    What stands after a message is merged into it: here a graph of nothing but outputs.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    _, already = read_ports(path)
    values = [_field(_VALUE_NAME, name.encode()) for name in names if name not in already]
    graph = b"".join(_field(_GRAPH_OUTPUT, value) for value in values)
    with opened(path) as file:
        return file.read() + _field(_MODEL_GRAPH, graph)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    size, prefix = len(content), bytearray()
    for value in (number << 3 | _BYTES, size):
        while value >= 0x80:
            prefix.append(value & 0x7F | 0x80)
            value >>= 7
        prefix.append(value)
    return bytes(prefix) + content


def check_nodes(path: Path) -> None:
    """Hold the nodes to what libraries take for granted (`onnxplain.contract.nodes`).

    Raises:
        BackendError: one is not allowed; no such file, or not an ONNX file.
    """
    with _opened(path) as data:
        for kind, node in _parts(data):
            if kind == _NODE and (problem := _problem(data, node)):
                raise BackendError(f"'{path}' cannot be run: {problem}")


def _problem(data: _Bytes, node: _Span) -> str | None:
    fields: dict[int, list[_Span]] = {}
    for number, found in _messages(data, node):
        fields.setdefault(number, []).append(found)
    attributes: dict[str, list[int]] = {}
    for name, numbers in (_integers(data, span) for span in fields.get(_NODE_ATTRIBUTE, [])):
        attributes.setdefault(name, []).extend(numbers)
    return forbidden(
        _last_text(data, fields.get(_NODE_OPERATOR, [])),
        _last_text(data, fields.get(_NODE_DOMAIN, [])),
        left_out=any(a == b for a, b in fields.get(_NODE_INPUT, [])),
        outputs=len(fields.get(_NODE_OUTPUT, [])),
        attributes=attributes,
    )


def _integers(data: _Bytes, attribute: _Span) -> tuple[str, list[int]]:
    """An attribute's name, and its integers: one, or several, each a field or packed in one."""
    found: list[int] = []
    for number, value in _fields(data, attribute):
        if number in _ATTRIBUTE_INTEGERS and isinstance(value, int):
            found.append(value)
        elif number in _ATTRIBUTE_INTEGERS and isinstance(value, tuple):
            at, end = value
            while at < end:
                packed, at = _varint(data, at)
                found.append(packed)
    signed = [value - 2**64 if value >= 2**63 else value for value in found]
    return _text(data, attribute, _ATTRIBUTE_NAME), signed


class _Bytes(mmap.mmap):
    """A file's bytes, and how many of its fields have been read."""

    fields = 0


class _opened:  # noqa: N801  (a context manager)
    """The file's bytes, mapped; whatever is wrong with them within is said of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Bytes:
        try:
            with opened(self._path) as file:
                self._data = _Bytes(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise BackendError(f"no such file: '{self._path}'") from None
        except (OSError, ValueError) as error:  # a folder, or a file of no bytes
            raise BackendError(f"'{self._path}' is not an ONNX file: {error}") from error
        return self._data

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._data.close()
        if kind is not None and issubclass(kind, (IndexError, ValueError)):
            raise BackendError(f"'{self._path}' is not an ONNX file, or it is cut short") from None


def _parts(data: _Bytes) -> Iterator[tuple[int, _Span]]:
    """Every `_NODE` and every `_TENSOR` of the file: of its graph, of subgraphs, of functions."""
    for graph in _inside(data, (0, len(data)), _MODEL_GRAPH):
        yield from _parts_of_graph(data, graph, _NESTED)
    for function in _inside(data, (0, len(data)), _MODEL_FUNCTIONS):
        for number, found in _messages(data, function):
            if number == _FUNCTION_NODE:
                yield from _parts_of_node(data, found, _NESTED)
            elif number == _FUNCTION_ATTRIBUTE:
                yield from _parts_of_attribute(data, found, _NESTED)


_NODE, _TENSOR = 0, 1


def _parts_of_graph(data: _Bytes, graph: _Span, nested: int) -> Iterator[tuple[int, _Span]]:
    if not nested:
        raise ValueError("subgraphs within subgraphs")
    for number, found in _messages(data, graph):
        if number == _GRAPH_INITIALIZER:
            yield _TENSOR, found
        elif number == _GRAPH_SPARSE_INITIALIZER:
            yield from _parts_of_sparse(data, found)
        elif number == _GRAPH_NODE:
            yield from _parts_of_node(data, found, nested)


def _parts_of_node(data: _Bytes, node: _Span, nested: int) -> Iterator[tuple[int, _Span]]:
    yield _NODE, node
    for attribute in _inside(data, node, _NODE_ATTRIBUTE):
        yield from _parts_of_attribute(data, attribute, nested)


def _parts_of_attribute(data: _Bytes, attribute: _Span, nested: int) -> Iterator[tuple[int, _Span]]:
    for number, found in _messages(data, attribute):
        if number in _ATTRIBUTE_TENSORS:
            yield _TENSOR, found
        elif number in _ATTRIBUTE_SPARSE_TENSORS:
            yield from _parts_of_sparse(data, found)
        elif number in _ATTRIBUTE_GRAPHS:
            yield from _parts_of_graph(data, found, nested - 1)


def _parts_of_sparse(data: _Bytes, sparse: _Span) -> Iterator[tuple[int, _Span]]:
    return (
        (_TENSOR, found) for number, found in _messages(data, sparse) if number in _SPARSE_TENSORS
    )


def _entry(data: _Bytes, span: _Span) -> tuple[str, str]:
    """A StringStringEntryProto."""
    return _text(data, span, _ENTRY_KEY), _text(data, span, _ENTRY_VALUE)


def _port(data: _Bytes, span: _Span) -> tuple[str, Port]:
    """A ValueInfoProto; a dimension without a size is open, a value without a shape a scalar."""
    name = _text(data, span, _VALUE_NAME)
    tensors = [
        tensor
        for type_ in _inside(data, span, _VALUE_TYPE)
        for tensor in _inside(data, type_, _TYPE_TENSOR)
    ]
    elements = (code for tensor in tensors for code in _numbers(data, tensor, _TENSOR_ELEMENT))
    shape = tuple(
        _last(_numbers(data, dimension, _DIMENSION_SIZE))
        for tensor in tensors
        for shape in _inside(data, tensor, _TENSOR_SHAPE)
        for dimension in _inside(data, shape, _SHAPE_DIMENSION)
    )
    return name, Port(_DTYPES.get(_last(elements) or 0, "unknown"), shape)


def _text(data: _Bytes, span: _Span, wanted: int) -> str:
    return _last_text(data, _inside(data, span, wanted))


def _last_text(data: _Bytes, spans: Iterable[_Span]) -> str:
    start, end = _last(spans) or (0, 0)
    if end - start > _TEXT:
        raise ValueError("a text without end")
    return data[start:end].decode()


def _last(found: Iterable[_Value]) -> _Value | None:
    """Of a field that should stand once, protocol buffers take the last."""
    return next(iter(deque(found, maxlen=1)), None)


def _inside(data: _Bytes, span: _Span, wanted: int) -> Iterator[_Span]:
    """Where the length-delimited fields of that number lie in the message at `span`."""
    return (found for number, found in _messages(data, span) if number == wanted)


def _messages(data: _Bytes, span: _Span) -> Iterator[tuple[int, _Span]]:
    """The numbers of the length-delimited fields of the message at `span`, and where they lie."""
    for number, found in _fields(data, span):
        if isinstance(found, tuple):
            yield number, found


def _numbers(data: _Bytes, span: _Span, wanted: int) -> Iterator[int]:
    """The values of the integer fields of that number in the message at `span`."""
    for number, found in _fields(data, span):
        if number == wanted and isinstance(found, int):
            yield found


def _fields(data: _Bytes, span: _Span) -> Iterator[tuple[int, int | _Span | None]]:
    """Each field's number, and its value if it is an integer, where it lies if it has a length."""
    at, end = span
    while at < end:
        data.fields += 1
        if data.fields > _FIELDS:
            raise ValueError("more fields than any network has")
        tag, at = _varint(data, at)
        if tag >> 32:  # of which libraries drop the upper bits
            raise ValueError("a field of no number")
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


def _varint(data: _Bytes, at: int) -> tuple[int, int]:
    """A base-128 number, the least significant group first, and where it ends."""
    value = 0
    for i in range(_LONGEST):
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number without end")
