"""Tar files of images and tables that are nearly those."""

from __future__ import annotations

import io
import random
import tarfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.reading import loads
from onnxplain.batch.tables import Tables
from onnxplain.errors import InputError

from .scrambled import scrambled

_BLOCK = 512
_NUMBERS = {"mode": (100, 8), "size": (124, 12), "time": (136, 12), "kind": (156, 1)}
_KINDS = b"0123456789ghxLKSVX\0"
_WRITTEN = (0, 1, 511, 512, 2**33 - 1, -1, -512, -1024, 2**62, -(2**62))


def seeds() -> list[bytes]:
    """Tar files of three formats, and a table."""
    encoded = io.BytesIO()
    Image.new("RGB", (4, 3)).save(encoded, "PNG")
    image = encoded.getvalue()
    formats = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
    found = [_tar(kind, image) for kind in formats]
    table, rows = io.BytesIO(), {"id": ["a", "b"], "image": [image, image]}
    pyarrow.parquet.write_table(pa.table(rows), table)
    return [*found, table.getvalue()]


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
    return _headers(seed, rng)


def attempt(path: Path) -> None:
    """As `onnxplain batch` lists and reads it under both suffixes; the last one's words are raised
    where both are refused.
    """
    refused: list[Exception] = []
    for suffix in (".tar", ".parquet"):
        try:
            _listed(path.rename(path.with_suffix(suffix)))
        except InputError as error:
            refused.append(error)
        finally:
            path.with_suffix(suffix).rename(path)
    if len(refused) == 2:
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
