"""Tensors in the KServe v2 protocol: in JSON or, with its extension, as bytes after the JSON.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictStr, ValidationError

from onnxplain.serve.refusal import malformed
from onnxplain.serve.schemas import Size, sentence

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON; the rest is tensors' data."""

DATATYPES = {
    **{"FP16": "float16", "FP32": "float32", "FP64": "float64", "INT64": "int64"},
    **{"INT8": "int8", "INT16": "int16", "INT32": "int32", "BOOL": "bool"},
    **{"UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64"},
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
"""numpy's name of a dtype → the protocol's."""

_BINARY_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"


class InferInput(BaseModel):
    name: StrictStr
    shape: list[Size] = Field(max_length=8)
    datatype: StrictStr = Field(description=", ".join(DATATYPES))
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = Field(
        default=None, description="Nested or flat; left out if binary_data_size is given."
    )


class InferOutput(BaseModel):
    name: StrictStr
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    id: StrictStr | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InferInput] = Field(max_length=8)
    outputs: list[InferOutput] = Field(
        default_factory=list, max_length=8, description="All of them if none is named."
    )


def read(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, NDArray[Any]]]:
    """A request and its inputs by name.

    Args:
        body: the request's.
        header_length: the value of its header `HEADER_LENGTH`, if it has one.

    Raises:
        Refusal: it is malformed.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()):
            raise malformed(f"{HEADER_LENGTH} is a number of bytes")
        length = int(header_length[:20])
        if length > len(body):
            raise malformed(f"{HEADER_LENGTH} is more than the body's {len(body)} bytes")
    try:
        request = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        raise malformed(sentence(error)) from None
    arrays: dict[str, NDArray[Any]] = {}
    rest = memoryview(body)[length:]
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise malformed(f"the input {tensor.name!r} is given twice")
        size = tensor.parameters.get(_BINARY_SIZE)
        if size is None:
            arrays[tensor.name] = _from_list(tensor)
        else:
            arrays[tensor.name], rest = _from_bytes(tensor, size, rest)
    if rest:
        raise malformed(f"{len(rest)} bytes follow the last tensor's")
    return request, arrays


def _dtype(tensor: InferInput) -> np.dtype[Any]:
    if tensor.datatype not in DATATYPES:
        raise malformed(
            f"the datatype of {tensor.name!r} is one of {', '.join(DATATYPES)}, not "
            f"{tensor.datatype[:20]!r}"
        )
    return np.dtype(DATATYPES[tensor.datatype]).newbyteorder("<")


def _from_bytes(tensor: InferInput, size: Any, rest: memoryview) -> tuple[NDArray[Any], memoryview]:
    dtype = _dtype(tensor)
    expected = math.prod(tensor.shape) * dtype.itemsize
    whole = type(size) is int and size == expected
    if not whole or expected > len(rest) or tensor.data is not None:
        raise malformed(
            f"{tensor.name!r} of shape {tensor.shape} has {expected} bytes; {_BINARY_SIZE} says "
            f"{str(size)[:20]}, and {len(rest)} follow"
        )
    return np.frombuffer(rest[:expected], dtype).reshape(tensor.shape), rest[expected:]


def _from_list(tensor: InferInput) -> NDArray[Any]:
    dtype = _dtype(tensor)
    numbers: list[Any] = []
    try:
        _flatten(tensor.data, {int, float} if dtype.kind == "f" else {int}, numbers)
        with np.errstate(over="ignore"):
            return np.array(numbers, dtype).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError):
        raise malformed(
            f"the data of {tensor.name!r} are not numbers of {tensor.datatype} in the shape "
            f"{tensor.shape}"
        ) from None


def _flatten(data: Any, kinds: set[type], into: list[Any]) -> None:
    """Raises ValueError for anything but numbers: numpy would pad each text to the longest."""
    for entry in data:
        if type(entry) is list:
            _flatten(entry, kinds, into)
        elif type(entry) in kinds:
            into.append(entry)
        else:
            raise ValueError


def write(
    head: dict[str, Any], request: InferRequest, arrays: dict[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """A response's body, and how many of its bytes are JSON if not all are.

    Args:
        head: the response without its outputs.
        request: which outputs it wants, and how.
        arrays: all outputs by name.

    Raises:
        Refusal: it asks for an output that does not exist.
    """
    wanted: Sequence[InferOutput] = request.outputs or [InferOutput(name=name) for name in arrays]
    outputs, blobs = [], []
    for output in wanted:
        if output.name not in arrays:
            raise malformed(
                f"there is no output {output.name[:50]!r}; there are {', '.join(arrays)}"
            )
        if "classification" in output.parameters:
            raise malformed("classification is not offered: take the logits")
        array = arrays[output.name]
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": NAMES[array.dtype.name],
            "shape": list(array.shape),
        }
        if output.parameters.get(_BINARY, request.parameters.get(_ALL_BINARY, False)) is True:
            blob = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            blobs.append(blob)
            described["parameters"] = {_BINARY_SIZE: len(blob)}
        else:
            described["data"] = array.reshape(-1).tolist()
        outputs.append(described)
    text = json.dumps(head | {"outputs": outputs}, allow_nan=False).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None
