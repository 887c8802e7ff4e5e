"""What there is to explain: every image in folders, tar files and tables, in a fixed order."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from onnxplain.batch.tables import column_of_ids, column_of_images, opened
from onnxplain.errors import InputError
from onnxplain.reading import matching
from onnxplain.reading import opened as opened_file
from onnxplain.runtime.inputs.images import SUFFIXES, files_in

if TYPE_CHECKING:
    import pyarrow.parquet

TAR, TABLE = ".tar", ".parquet"

_EXTENSIONS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONGEST_EXTENSION = 1 << 14  # bytes of a longer name and of other settings
_PIECE = 1 << 20  # bytes read at a time behind a tar file's end


class Item(NamedTuple):
    """One image, and where its bytes are.

    Attributes:
        id: its name in the output: the path as the input was given; `TAR/MEMBER`; `TABLE#ROW`, or
            what the table's column of ids says.
        file: the absolute path of the image, tar file or table.
        offset: the first byte of a tar file's member; the row in a table; otherwise 0.
        length: in bytes; 1 for a row in a table.
        size, modified: those of `file`, in bytes and in nanoseconds since the epoch, which show
            whether it has changed.
    """

    id: str
    file: str
    offset: int
    length: int
    size: int
    modified: int


class Columns(NamedTuple):
    """The columns of a table that hold the encoded images and their ids; None to find them."""

    image: str | None = None
    id: str | None = None


def list_items(inputs: Sequence[str], columns: Columns) -> Iterator[Item]:
    """Every image that the inputs name, one at a time, without keeping earlier ones in memory.

    The order is that of the inputs. Within a folder, files come before folders, both sorted;
    matches of a pattern are sorted; a tar file or table keeps its own order.

    Args:
        inputs: image files; tar files (as WebDataset's: each member with an image's suffix is an
            image); Parquet tables (each row is an image); folders, searched recursively for images
            or, if they have none, for tar files and tables; and glob patterns of all these.
        columns: the tables' columns.

    Raises:
        InputError: an input that names no image, or one that another input already named; a tar
            file or table that cannot be read.
    """
    seen: set[str] = set()
    for given in inputs:
        paths = [given] if os.path.exists(given) else _outermost(matching(given))
        found = False
        for file in (file for path in paths for file in _files(path)):
            if len(inputs) > 1 or len(paths) > 1:
                if (real := os.path.realpath(file)) in seen:
                    raise InputError(f"'{file}' is named by two of the inputs; name it once")
                seen.add(real)
            for item in _items(file, columns):
                found = True
                yield item
        if not found:
            raise InputError(f"no image found at '{given}'")


def _outermost(paths: Sequence[Path]) -> list[str]:
    """Sorted, without what lies in a folder that is among them: `**` gives it as well."""
    folders = {path for path in paths if path.is_dir()}
    return sorted(str(path) for path in paths if folders.isdisjoint(path.parents))


def _files(path: str) -> Iterator[str]:
    """A file itself; for a folder its images, or if there are none its tar files and tables."""
    if not os.path.isdir(path):
        yield path
        return
    images = False
    for file in files_in(path, SUFFIXES):
        images = True
        yield file
    if not images:
        yield from files_in(path, (TAR, TABLE))


def _items(file: str, columns: Columns) -> Iterator[Item]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise InputError(f"'{file}' cannot be read: {error.strerror}") from None
    place, stamp = os.path.abspath(file), (status.st_size, status.st_mtime_ns)
    suffix = Path(file).suffix.lower()
    if file.lower().endswith((".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(
            f"'{file}' is compressed, and cannot be read from its middle: uncompress it first "
            "(JPEG and PNG hardly shrink)"
        )
    if suffix == TAR:
        for name, offset, length in _members(file):
            yield Item(f"{file}/{name}", place, offset, length, *stamp)
    elif suffix == TABLE:
        with opened(file) as table:
            column_of_images(table, columns.image)
            for row, name in enumerate(_names(table, file, columns.id)):
                yield Item(name, place, row, 1, *stamp)
    else:
        yield Item(file, place, 0, status.st_size, *stamp)


class _Member(tarfile.TarInfo):
    """A header that leads forward, and whose extensions are short: those are searched in a time
    that grows with their square."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        most = _LONGEST_EXTENSION if found.type in _EXTENSIONS else sys.maxsize
        if not 0 <= found.size <= most:
            raise tarfile.ReadError(f"a header says that {found.size:,} bytes follow it")
        return found


def _members(file: str) -> Iterator[tuple[str, int, int]]:
    """The images of a tar file: name, first byte, length."""
    try:
        with (
            opened_file(file) as source,
            tarfile.open(fileobj=source, mode="r:", tarinfo=_Member) as tar,
        ):
            reached = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every record
                # The settings before a member replace what its header says.
                if member.size < 0 or tar.offset <= reached:  # type: ignore[attr-defined]
                    raise InputError(f"'{file}' is damaged: it leads back at {member.name!r}")
                reached = tar.offset  # type: ignore[attr-defined]
                name = member.name.rpartition("/")[2]
                if member.isdir() or name.startswith(".") or not name.lower().endswith(SUFFIXES):
                    continue
                if member.issparse() or not member.isreg():
                    how = "with its zeros left out" if member.issparse() else "as no plain file"
                    raise InputError(
                        f"'{file}' holds {member.name!r} {how}, and cannot be read in place: pack "
                        "it again as a whole (GNU tar: --dereference --hard-dereference, not "
                        "--sparse; onnxplain batch reads folders too)"
                    )
                if member.offset_data + member.size > os.path.getsize(file):
                    raise InputError(f"'{file}' is cut short within '{member.name}'")
                yield member.name, member.offset_data, member.size
            _check_end(source, tar.offset, file)  # type: ignore[attr-defined]
    except InputError:
        raise
    except Exception as error:  # tarfile raises whatever a damaged header leads it to
        raise InputError(f"'{file}' is not a tar file, or it is damaged: {error}") from error


def _check_end(source: BufferedReader, end: int, file: str) -> None:
    """Check that a tar file ends where its members do, with zeros.

    Reading them ends as well where a header is cut short, or is none; and where another tar file
    follows.
    """
    source.seek(end)
    if source.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise InputError(
            f"'{file}' is cut short or damaged after its first {end:,} bytes: its end is not "
            "marked as one"
        )
    while rest := source.read(_PIECE):
        if rest.count(0) < len(rest):
            raise InputError(
                f"'{file}' goes on after its first {end:,} bytes, where its end is marked: if it "
                "is several tar files in one, give each of them"
            )


def _names(table: pyarrow.parquet.ParquetFile, file: str, column: str | None) -> Iterator[str]:
    if column is None:
        yield from (f"{file}#{row}" for row in range(table.metadata.num_rows))
        return
    for batch in table.iter_batches(columns=[column_of_ids(table, column)]):
        yield from (str(name) for name in batch.column(0).to_pylist())
