"""The engine file: what a compiler made of a graph, and all that is needed to run it.

    bytes 0-15    b"onnxplain engine"
    bytes 16-23   the length of the header, little endian
    ...           the header, JSON: the fields of `Engine` and the payload's length and SHA-256
    ...           the payload: the compiler's own serialised engine

The compiler's format has no place for the graph's metadata, and deserialising a file that
was damaged or made for another version or GPU is not safe. So nothing is handed to it that does
not pass `read_engine` and `Engine.check`. That says a file is whole, not who made it: like any
program, run only engines of people you trust.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from onnxplain.errors import BackendError
from onnxplain.files import replacing
from onnxplain.reading import opened, parsed
from onnxplain.runtime.sessions.cuda_driver import Cuda
from onnxplain.runtime.sessions.tensorrt.package import Package
from onnxplain.runtime.signature import Port

SUFFIX = ".engine"

_MAGIC = b"onnxplain engine"
_FORMAT = 2
_LONGEST_HEADER = 1 << 26
_RAW = (b"ptrt", b"ftrt", b"vtrt")  # how the compilers' own files begin

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """A graph, compiled.

    Attributes:
        provider: "tensorrt" or "tensorrt-rtx".
        version: of the package that built it, the only one that can run it.
        sms: the compute capabilities that it runs on, 89 for 8.9.
        gpu: the name of the only model of GPU that it runs on; empty when `sms` says it all.
        system: the only operating system and processor that it runs on; empty for any.
        precision: "float32", "tf32", "float16", "bfloat16" or "int8".
        profile: input → the smallest, usual and largest shape.
        refittable: whether its weights can be replaced.
        graph: SHA-256 of the graph's file.
        metadata: the graph's `metadata_props`.
        inputs, outputs: by name, in the graph's order.
        payload: the compiler's own serialised engine.
    """

    provider: str
    version: str
    sms: tuple[int, ...]
    gpu: str
    system: str
    precision: str
    profile: Mapping[str, tuple[Shape, Shape, Shape]]
    refittable: bool
    graph: str
    metadata: Mapping[str, str]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    payload: memoryview = field(repr=False)

    def check(self, package: Package, cuda: Cuda | None = None) -> None:
        """Whether this package can run it, and, where one is given, this GPU.

        Raises:
            BackendError: it was built by another version, for another system or another GPU.
        """
        if self.version != package.version:
            raise BackendError(
                f"the engine was built by {self.provider} {self.version}, and only that version "
                f"can run it; {package.version} is installed: build it again (onnxplain build)"
            )
        if self.system not in ("", this_system()):
            raise BackendError(
                f"the engine was built on {self.system}, and this is {this_system()}: build it here"
            )
        if cuda is None:
            return
        if cuda.sm not in self.sms or self.gpu not in ("", cuda.name):
            named = f"{self.gpu}, " if self.gpu else ""
            raise BackendError(
                f"the engine was built for {named}SM {', '.join(map(str, self.sms))}, and the GPU "
                f"here is {cuda.name}, SM {cuda.sm}: build one for it (onnxplain build)"
            )

    def write(self, path: Path) -> None:
        """Write it as an engine file; an existing one is replaced once the new one is complete.

        Raises:
            InputError: the path cannot be written.
        """
        header = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name not in ("payload", "inputs", "outputs")
        }
        header |= {
            "format": _FORMAT,
            "inputs": {name: dataclasses.astuple(port) for name, port in self.inputs.items()},
            "outputs": {name: dataclasses.astuple(port) for name, port in self.outputs.items()},
            "bytes": len(self.payload),
        }
        header["sha256"] = _digest(header, self.payload)
        text = json.dumps(header, ensure_ascii=False).encode()
        with replacing(path) as beside, beside.open("wb") as file:
            file.write(_MAGIC + struct.pack("<Q", len(text)) + text)
            file.write(self.payload)


def _digest(header: Mapping[str, Any], payload: bytes | memoryview) -> str:
    """Of all that the file says and holds."""
    digest = hashlib.sha256(json.dumps(header, ensure_ascii=False).encode())
    digest.update(payload)
    return digest.hexdigest()


def this_system() -> str:
    return f"{sys.platform} {platform.machine()}"


def read_engine(path: Path) -> Engine:
    """Read an engine file, and check that it is whole.

    Raises:
        BackendError: no such file; not an engine file; one of another format; cut short or damaged.
    """
    try:
        with opened(path) as file:
            header = _header(file, path)
            payload = memoryview(file.read())
    except FileNotFoundError:
        raise BackendError(f"no such file: '{path}'") from None
    except OSError as error:
        raise BackendError(f"cannot read '{path}': {error.strerror}") from error
    if header.get("format") != _FORMAT:
        raise BackendError(
            f"'{path}' is an engine file of format {header.get('format')}, this onnxplain reads "
            f"format {_FORMAT}: build it again (onnxplain build)"
        )
    written = header.pop("sha256", None)
    try:
        if len(payload) != header.get("bytes") or _digest(header, payload) != written:
            raise _damaged(path)
        fields = {entry.name: header[entry.name] for entry in dataclasses.fields(Engine)[:-1]}
        for end in ("inputs", "outputs"):
            fields[end] = {n: Port(dtype, tuple(s)) for n, (dtype, s) in fields[end].items()}
        fields["profile"] = {n: tuple(map(tuple, s)) for n, s in fields["profile"].items()}
        fields["sms"] = tuple(fields["sms"])
        return Engine(**fields, payload=payload)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
    start = file.read(len(_MAGIC) + 8)
    if start[:4] in _RAW:
        raise BackendError(
            f"'{path}' is a raw TensorRT engine: it does not say what it explains, nor what it may "
            "run on; build one from the explain graph (onnxplain build)"
        )
    if not start.startswith(_MAGIC):
        raise BackendError(
            f"'{path}' is not an engine file; make one from an explain graph: onnxplain build"
        )
    if len(start) < len(_MAGIC) + 8:
        raise _damaged(path)
    (length,) = struct.unpack("<Q", start[len(_MAGIC) :])
    text = file.read(min(length, _LONGEST_HEADER))
    try:
        header = parsed(text)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(header, dict):
        raise _damaged(path)
    return header


def _damaged(path: Path) -> BackendError:
    return BackendError(
        f"the engine file '{path}' is cut short or damaged; build it again (onnxplain build)"
    )
