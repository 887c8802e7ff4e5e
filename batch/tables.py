"""Parquet tables that hold encoded images: which column, and the bytes of a range of rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow
import pyarrow.parquet

from onnxplain.errors import InputError

_ROWS_AT_ONCE = 8  # read together: a row may be megabytes
_BUFFER = 1 << 20


@contextmanager
def opened(file: str | os.PathLike[str]) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A table, read piece by piece; whatever Arrow says of it within becomes an InputError.

    Raises:
        InputError: it is missing, damaged or no Parquet file.
    """
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"'{file}' is not a Parquet table, or it is damaged: {error}") from error


def column_of_images(table: pyarrow.parquet.ParquetFile, wanted: str | None) -> str:
    """The column that holds the encoded images: binary, or Hugging Face's struct with `bytes`.

    Args:
        wanted: its name; None for the only one that there is.

    Returns:
        The path of the leaf column.

    Raises:
        InputError: no such column, or not one alone.
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
    raise InputError(f"{problem}; --image-column names one of {', '.join(leaves)}")


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
    """The column of ids, checked.

    Raises:
        InputError: no such column.
    """
    if wanted not in table.schema_arrow.names:
        names = ", ".join(table.schema_arrow.names)
        raise InputError(f"no column '{wanted}' for --id-column; the table has {names}")
    return wanted


def encoded_rows(file: str, first: int, count: int, column: str | None) -> Iterator[bytes | None]:
    """The images' bytes of the rows `first` to `first + count`, None where a row has none.

    Only the row groups that hold them are read, each from its beginning.

    Raises:
        InputError: the table cannot be read.
    """
    with opened(file) as table:
        leaf = column_of_images(table, column)
        groups: list[int] = []
        skip = before = 0
        for group in range(table.metadata.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if before + rows > first and before < first + count:
                if not groups:
                    skip = first - before
                groups.append(group)
            before += rows
        if not groups:
            raise InputError(f"'{file}' has {before} rows, and none of number {first}")
        left = count
        for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[leaf]):
            values = batch.column(0)
            if pyarrow.types.is_struct(values.type):
                values = values.flatten()[0]
            used = values.slice(skip, left)
            skip = max(0, skip - len(values))
            left -= len(used)
            yield from used.to_pylist()
            if not left:
                return
