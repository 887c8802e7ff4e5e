"""From files to eight-bit RGB: find images, and decode whatever a camera or scanner wrote."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from onnxplain.errors import InputError
from onnxplain.reading import NotAFileError, matching, opened

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".webp", ".avif", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
_AT_ONCE = 1 << 20  # pixels in float64, of which a small file can have many
_warning_filters = threading.Lock()  # are global; two threads would restore each other's


def find_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> list[Path]:
    """The image files that `paths` name, sorted, each once.

    A file is taken whatever its suffix. A folder is searched recursively, and a glob pattern
    (`**` for any depth) is expanded, for files that have an image's suffix and are not hidden.

    Raises:
        InputError: one of `paths` names no image.
    """
    found: dict[Path, Path] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        matches = _matches(path)
        if not matches:
            raise InputError(f"no image found at '{os.fspath(path)}'")
        for match in matches:
            found.setdefault(match.resolve(), match)
    if not found:
        raise InputError("no image given")
    return sorted(found.values())


def _matches(path: str | os.PathLike[str]) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        candidates: Iterable[Path] = Path(path).rglob("*")
    else:
        candidates = matching(path)
    return [
        file
        for file in candidates
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]


def files_in(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The files in a folder, at any depth, that end so and are not hidden; in one order always.

    Raises:
        InputError: it, or a folder in it, cannot be searched.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"'{error.filename}' cannot be searched: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(parent, name)


def load_image(source: str | os.PathLike[str] | Image.Image | BinaryIO) -> Image.Image:
    """Decode a file (its path, or opened) of one of `formats`, or convert a PIL image, to mode RGB,
    upright.

    The orientation that EXIF records is applied. Transparent parts become white. Grey of more
    than eight bits is scaled, not clipped: from 0…65535 for integers; for floats from the first
    of 0…1, 0…255 and 0…65535 that holds every pixel; if none does, from its own least to greatest.
    Of several frames the first is taken.

    Raises:
        InputError: no such file; not an image; damaged or cut short; empty; NaN or infinite
            pixels; more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with _errors_of(source):
        image = source if isinstance(source, Image.Image) else _open(source)
        return _to_rgb(ImageOps.exif_transpose(image))


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of what `load_image` decodes, from the file's head.

    Raises:
        InputError: as `load_image`, as far as the head shows it.
    """
    with _errors_of(path), opened(path) as regular, recognised(regular) as image:
        lying = image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        return (image.height, image.width) if lying else image.size


_LYING = (5, 6, 7, 8)
"""The orientations of EXIF that exchange width and height."""


@cache
def formats() -> list[str]:
    """What pictures may be encoded in, by Pillow's names.

    Some of its other formats start programs (PostScript: Ghostscript), whatever a file is called.
    """
    Image.init()
    wanted = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
    return [name for name in wanted if name in Image.OPEN]  # not every build has all of them


def recognised(file: BinaryIO) -> Image.Image:
    """The picture in an opened file, of one of `formats`, its head read.

    Raises:
        UnidentifiedImageError: it is none of them.
        Exception: of any kind, where it is damaged or too large.
    """
    return Image.open(file, formats=formats())


@contextmanager
def _errors_of(source: str | os.PathLike[str] | Image.Image | BinaryIO) -> Iterator[None]:
    """Whatever is wrong with a picture is said of it."""
    name = f"'{os.fspath(source)}'" if isinstance(source, (str, os.PathLike)) else "the image"
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"no such file: {name}") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image of {', '.join(formats())}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is too large to be decoded safely: {error}") from error
    except (NotAFileError, PermissionError) as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise InputError(f"{name} is damaged or cut short: {error}") from error


def _open(file: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    if isinstance(file, (str, os.PathLike)):
        with opened(file) as regular:
            return _open(regular)
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = recognised(file)
    with image:
        image.load()
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise InputError("has no pixels")
    if image.mode[0] in "IF":
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    if not np.isfinite(pixels).all():
        raise InputError("has NaN or infinite pixels")
    least, greatest = float(pixels.min()), float(pixels.max())
    tops = (1, 255, 65535) if image.mode == "F" else (65535,)
    low, high = next(((0, top) for top in tops if 0 <= least <= greatest <= top), (least, greatest))
    flat, eight = pixels.reshape(-1), np.empty(pixels.size, np.uint8)
    for at in range(0, pixels.size, _AT_ONCE):
        part = flat[at : at + _AT_ONCE].astype(np.float64)
        eight[at : at + _AT_ONCE] = np.rint(255 * ((part - low) / ((high - low) or 1)))
    return Image.fromarray(eight.reshape(pixels.shape))
