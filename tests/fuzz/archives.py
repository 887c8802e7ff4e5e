"""Tar files of images, tables and archives of PyTorch that are nearly those."""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image

from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.reading import loads
from onnxplain.batch.tables import Tables
from onnxplain.errors import InputError, SourceError
from onnxplain.export.sources.from_programs import load_archive

from .mutants import other
from .scrambled import scrambled

_BLOCK = 512
_NUMBERS = {"mode": (100, 8), "size": (124, 12), "time": (136, 12), "kind": (156, 1)}
_KINDS = b"0123456789ghxLKSVX\0"
_WRITTEN = (0, 1, 511, 512, 2**33 - 1, -1, -512, -1024, 2**62, -(2**62))
_LONGEST = 1 << 20
_PLACES = (
    *("../x", "/x", "a/code/x.py", "a/models/m.json", "a/constants.pkl"),
    "a/data/weights/w.json",
)


def seeds() -> list[bytes]:
    """Tar files of three formats, a table, a `torch.export` program and TorchScript."""
    encoded = io.BytesIO()
    Image.new("RGB", (4, 3)).save(encoded, "PNG")
    image = encoded.getvalue()
    formats = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
    found = [_tar(kind, image) for kind in formats]
    table, rows = io.BytesIO(), {"id": ["a", "b"], "image": [image, image]}
    pyarrow.parquet.write_table(pa.table(rows), table)
    program, script = io.BytesIO(), io.BytesIO()
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    torch.export.save(torch.export.export(layer, (torch.zeros(1, 3, 2, 2),)), program)
    torch.jit.save(torch.jit.script(layer), script)
    return [*found, table.getvalue(), program.getvalue(), script.getvalue()]


def _tar(kind: int, image: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name in ("1.png", "1.json", f"{'long/' * 60}2.png", "3.PNG"):
            member = tarfile.TarInfo("ü" + name)
            if kind == tarfile.PAX_FORMAT:
                member.pax_headers = {"comment": "c", "mtime": "1.5"}
            member.size = len(image)
            with suppress(ValueError):  # a name too long for the oldest format
                tar.addfile(member, io.BytesIO(image))
    return file.getvalue()


def mutant(seed: bytes, rng: random.Random) -> bytes:
    """A copy with headers or members changed, with check sums that are right, or some bytes."""
    if rng.random() < 0.3 or seed.startswith(b"PAR1"):
        return scrambled(seed, rng)
    return (_zip if seed.startswith(b"PK") else _headers)(seed, rng)


def attempt(path: Path) -> None:
    """As `onnxplain batch` lists and reads it under its three suffixes, and as PyTorch's.

    Each is given to every reader, and the last one's words are raised.
    """
    readers: dict[str, Callable[[Path], object]] = {
        ".tar": _listed,
        ".parquet": _listed,
        ".pt2": load_archive,
    }
    refused: list[Exception] = []
    for suffix, read in readers.items():
        try:
            read(path.rename(path.with_suffix(suffix)))
        except (InputError, SourceError) as error:
            refused.append(error)
        finally:
            path.with_suffix(suffix).rename(path)
    if len(refused) == len(readers):
        raise refused[-1]


def _listed(path: Path) -> None:
    items = list(list_items([str(path)], Columns()))
    for load in loads(items, Tables(None)):
        with suppress(InputError):
            load()


def _headers(seed: bytes, rng: random.Random) -> bytes:
    """Fields of a tar file's headers, with another check sum; or blocks left out or repeated."""
    changed = bytearray(seed)
    for _ in range(rng.choice([1, 1, 2, 3])):
        blocks = range(0, len(changed), _BLOCK)
        heads = [at for at in blocks if changed[at + 257 : at + 262] == b"ustar"]
        if not heads:
            break
        at = rng.choice(heads)
        if rng.random() < 0.2:
            if rng.random() < 0.5:
                del changed[at : at + _BLOCK]
            else:
                changed[at:at] = changed[at : at + _BLOCK * rng.choice([1, 2, 3])]
            continue
        place, width = _NUMBERS[name := rng.choice(list(_NUMBERS))]
        if name == "kind":
            field = bytes([rng.choice(_KINDS)])
        elif rng.random() < 0.5:
            field = scrambled(bytes(changed[at + place : at + place + width]), rng)
        else:
            number = rng.choice(_WRITTEN)
            sign = b"\xff" if number < 0 else b"\x80"
            field = sign + number.to_bytes(16, "big", signed=True)[1 - width :]
        changed[at + place : at + place + width] = field[:width].ljust(width, b"\0")
        changed[at + 148 : at + 156] = b" " * 8
        changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + _BLOCK])
    return bytes(changed)


def _zip(seed: bytes, rng: random.Random) -> bytes:
    """Members of an archive of PyTorch changed, left out, repeated, renamed or packed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as source:
        members = [(name, source.read(name)) for name in source.namelist()]
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(members))
        name, data = members[at]
        match rng.randrange(7):
            case 0:
                del members[at]
            case 1:
                members.append((name, rng.choice(members)[1]))
            case 2:
                members[at] = rng.choice([*_PLACES, name * 9]), data
            case 3:
                members[at] = name, bytes(rng.choice([0, 1, _LONGEST]))
            case 4:
                members[at] = name, scrambled(data, rng)
            case 5 | 6:
                described = [i for i, (name, _) in enumerate(members) if name.endswith(".json")]
                if described:
                    at = rng.choice(described)
                    with suppress(ValueError):
                        tree: Any = other(json.loads(members[at][1]), rng)
                        members[at] = members[at][0], json.dumps(tree).encode()
        if not members:
            break
    packed = zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", packed) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()
