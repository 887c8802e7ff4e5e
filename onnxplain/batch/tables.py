"""Parquet tables of encoded images: which column holds them, and the bytes of some rows."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import pyarrow
import pyarrow.parquet

from onnxplain.errors import InputError
from onnxplain.reading import regular

_ROWS_AT_ONCE = 8  # read together; a row may be megabytes
_BUFFER = 1 << 20


@contextmanager
def opened(file: str | os.PathLike[str]) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A table, read piece by piece; Arrow's errors about it become InputErrors.

    Raises:
        InputError: it is missing, damaged, or not a Parquet file.
    """
    with _said_of(file), _parquet_file(file) as table:
        yield table


@contextmanager
def _said_of(file: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Arrow raises whatever a damaged table leads it to
        raise InputError(f"'{file}' is not a Parquet table, or it is damaged: {error}") from error


def _parquet_file(file: str | os.PathLike[str]) -> pyarrow.parquet.ParquetFile:
    regular(file)
    return pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def column_of_images(table: pyarrow.parquet.ParquetFile, wanted: str | None) -> str:
    """The column that holds the encoded images: binary, or Hugging Face's struct with `bytes`.

    Args:
        wanted: its name; None if there is only one.

    Returns:
        The path of the leaf column.

    Raises:
        InputError: no such column, or more than one.
    """
    leaves = {
        field.name: leaf for field in table.schema_arrow if (leaf := _leaf(field)) is not None
    }
    if wanted is None and len(leaves) == 1:
        return next(iter(leaves.values()))
    if wanted in leaves:
        return leaves[wanted]
    if not leaves:
        names = ", ".join(table.schema_arrow.names)
        raise InputError(
            f"no column holds encoded images (binary, or a struct with binary 'bytes'): {names}"
        )
    problem = "several columns can hold images" if wanted is None else f"no images in '{wanted}'"
    raise InputError(f"{problem}; image_column= names one of {', '.join(leaves)}")


def _leaf(field: pyarrow.Field) -> str | None:
    if _is_binary(field.type):
        return field.name
    if pyarrow.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and _is_binary(field.type.field(index).type):
            return f"{field.name}.bytes"
    return None


def _is_binary(kind: pyarrow.DataType) -> bool:
    return (
        pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_binary(kind)
        or pyarrow.types.is_binary_view(kind)
    )


def column_of_ids(table: pyarrow.parquet.ParquetFile, wanted: str) -> str:
    """The column of ids, after checking that it exists.

    Raises:
        InputError: no such column.
    """
    if wanted not in table.schema_arrow.names:
        names = ", ".join(table.schema_arrow.names)
        raise InputError(f"no column '{wanted}' for id_column=; the table has {names}")
    return wanted


class Tables:
    """The images' bytes in rows of tables, for reading forwards.

    A row group can only be decoded from its beginning. So a table stays open where reading stopped,
    and later rows of the row group are reached from there.

    Args:
        column: as for `column_of_images`.
    """

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._file: str | None = None
        self._starts = [0]  # the first row of each row group, and the number of rows
        self._batches: Iterator[pyarrow.RecordBatch] = iter(())
        self._rest = pyarrow.array([])  # of the batch that was read last
        self._at = -1  # the row of its first entry, and the row that is read next

    def rows(self, file: str, first: int, count: int) -> Iterator[bytes | None]:
        """The bytes of the images in `count` rows from `first` on; None if a row has none.

        Raises:
            InputError: the table cannot be read.
        """
        try:
            with _said_of(file):
                self._seek(file, first)
                while count:
                    values = self._take(count)
                    count -= len(values)
                    yield from values.to_pylist()
        except InputError:
            self._file = None  # its position is unknown
            raise

    def _seek(self, file: str, first: int) -> None:
        """Go to the row `first`: forwards, or from the beginning of its row group."""
        if file != self._file:
            self._open(file)
        if first >= self._starts[-1]:
            rows = self._starts[-1]
            raise InputError(f"'{file}' has {rows} rows, and none of number {first}")
        group = bisect_right(self._starts, first) - 1
        if not self._starts[group] <= self._at <= first:
            self._begin(group)
        while self._at < first:
            self._take(first - self._at)

    def _open(self, file: str) -> None:
        self._table = _parquet_file(file)
        self._leaf = column_of_images(self._table, self._column)
        metadata = self._table.metadata
        rows = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(rows)]
        self._at, self._file = -1, file

    def _begin(self, group: int) -> None:
        groups = list(range(group, len(self._starts) - 1))
        self._batches = self._table.iter_batches(
            _ROWS_AT_ONCE, row_groups=groups, columns=[self._leaf]
        )
        self._at, self._rest = self._starts[group], self._rest.slice(0, 0)

    def _take(self, most: int) -> pyarrow.Array:
        """The values of the next rows, at least one."""
        while not len(self._rest):
            if (batch := next(self._batches, None)) is None:
                raise InputError(f"'{self._file}' has no row {self._at}")
            values = batch.column(0)
            self._rest = values.flatten()[0] if pyarrow.types.is_struct(values.type) else values
        taken, self._rest = self._rest.slice(0, most), self._rest.slice(most)
        self._at += len(taken)
        return taken
