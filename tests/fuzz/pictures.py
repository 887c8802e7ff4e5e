"""Image files that are nearly those."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime import load_image
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.serve.decode import open_image
from onnxplain.serve.refusal import Refusal

from .scrambled import scrambled

_PIXELS = 1_000_000  # of an image sent to a service
_PREPROCESSING = Preprocessing(8, 8, 8)
_SIZES = (0, 1, 2, 255, 4_000, 9_000, 20_000, 2**16, 2**31 - 1, 2**32 - 1)
_DEPTHS = (1, 2, 4, 8, 16, 32)
_TAGS = 254, 256, 257, 258, 259, 262, 273, 277, 278, 317, 322, 338, 339, 34665
_ENTRY = struct.Struct("<HHII")


def seeds() -> list[bytes]:
    """Of every kind that photographs, scans and drawings come in."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    grey = Image.fromarray(rng.integers(0, 65536, (9, 12), np.uint16))
    alpha, palette = rgb.convert("RGBA"), rgb.quantize(7)
    alpha.putalpha(100)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0comment"
    frames = {"save_all": True, "append_images": [rgb.rotate(180)], "duration": 40}
    cases: list[tuple[Image.Image, str, dict[str, object]]] = [
        (rgb, "JPEG", {"exif": exif, "icc_profile": bytes(200), "comment": "c"}),
        (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {"exif": exif, "icc_profile": bytes(200)}),
        (alpha, "PNG", {}),
        (grey, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (rgb, "PNG", frames),
        (rgb, "GIF", frames),
        (palette, "GIF", {"transparency": 1}),
        (rgb, "WEBP", {"exif": exif}),
        (alpha, "WEBP", {"lossless": True}),
        (rgb, "WEBP", frames),
        (rgb, "TIFF", {"exif": exif}),
        (grey, "TIFF", {}),
        (Image.fromarray(rng.random((9, 12), np.float32)), "TIFF", {}),
        *((rgb, "TIFF", {"compression": kind}) for kind in ("tiff_lzw", "tiff_deflate", "jpeg")),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "TIFF", frames),
        (rgb, "BMP", {}),
        (rgb, "PPM", {}),
        (rgb, "JPEG2000", {}),
        (rgb, "AVIF", {"exif": exif}),
    ]
    found = []
    for image, kind, options in cases:
        encoded = io.BytesIO()
        image.save(encoded, kind, **options)
        found.append(encoded.getvalue())
    return found


def mutant(seed: bytes, rng: random.Random) -> bytes:
    """A copy of which bytes are changed, or sizes and entries, with check sums that are right."""
    if rng.random() < 0.5:
        if seed.startswith(b"\x89PNG"):
            return _png(seed, rng)
        if seed.startswith(b"II*\0"):
            return _tiff(seed, rng)
        if (at := seed.find(b"Exif\0\0II*\0")) >= 0:
            return seed[: at + 6] + _tiff(seed[at + 6 :], rng)
        if seed.startswith((b"\xff\xd8", b"GIF8", b"BM")):
            return _sized(seed, rng)
    return scrambled(seed, rng)


def attempt(path: Path) -> None:
    """As a command reads it, and as the service does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(InputError, Refusal):
            open_image(path.read_bytes(), _PIXELS)
        as_batch(load_image(path), _PREPROCESSING, np.dtype(np.float32))


def _png(seed: bytes, rng: random.Random) -> bytes:
    """Chunks left out, repeated, exchanged or changed; sometimes an image as large as can be."""
    chunks, at = [], 8
    while at < len(seed):
        (size,) = struct.unpack_from(">I", seed, at)
        chunks.append((seed[at + 4 : at + 8], seed[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(rng.choice([1, 2])):
        at = rng.randrange(len(chunks))
        kind, data = chunks[at]
        match rng.randrange(6):
            case 0:
                del chunks[at]
            case 1:
                chunks.insert(rng.randrange(len(chunks)), chunks[at])
            case 2 | 3:
                chunks[at] = kind, scrambled(data, rng)
            case 4:
                header = bytearray(chunks[0][1].ljust(13, b"\0")[:13])
                struct.pack_into(">I", header, rng.choice([0, 4]), rng.choice(_SIZES))
                header[8:10] = bytes([rng.choice(_DEPTHS), rng.choice([0, 2, 3, 4, 6])])
                chunks[0] = b"IHDR", bytes(header)
            case 5:
                kind = rng.choice([b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"tRNS"])
                packed = zlib.compress(bytes(rng.choice([0, 100, 3_000_000])))
                chunks.insert(min(1, len(chunks)), (kind, b"name\0\0" + packed))
        if not chunks:
            return seed[:8]
    return seed[:8] + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(seed: bytes, rng: random.Random) -> bytes:
    """Entries of the first directory changed."""
    changed = bytearray(seed)
    (first,) = struct.unpack_from("<I", seed, 4)
    (count,) = struct.unpack_from("<H", seed, first)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = first + 2 + 12 * rng.randrange(count)
        tag, kind, values, value = _ENTRY.unpack_from(changed, at)
        match rng.randrange(5):
            case 0:
                tag = rng.choice(_TAGS)
            case 1:
                kind = rng.randrange(16)
            case 2:
                values = rng.choice(_SIZES)
            case 3:
                value = rng.choice([*_SIZES, first, at, len(seed)])
            case 4:
                struct.pack_into("<I", changed, first + 2 + 12 * count, rng.choice([first, 8, at]))
        _ENTRY.pack_into(changed, at, tag, kind, values, value)
    return bytes(changed)


def _sized(seed: bytes, rng: random.Random) -> bytes:
    """Of another height and width."""
    changed = bytearray(seed)
    if seed.startswith(b"GIF8"):
        places: Sequence[int] = (6, 8)
    elif seed.startswith(b"BM"):
        places = (18, 22)
    else:
        frame = max(seed.find(b"\xff\xc0"), seed.find(b"\xff\xc2"))
        places = (frame + 5, frame + 7)
    for at in places:
        size = rng.choice(_SIZES) & 0xFFFF
        changed[at : at + 2] = size.to_bytes(2, "big" if seed.startswith(b"\xff") else "little")
    return bytes(changed)
