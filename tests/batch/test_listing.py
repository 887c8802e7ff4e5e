"""Which images there are, in which order, and what bytes they have."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from onnxplain.batch.listing import Columns, Item, list_items
from onnxplain.batch.reading import loads
from onnxplain.batch.tables import Tables
from onnxplain.errors import InputError

ANY = Columns()


def names(*inputs: Path | str) -> list[str]:
    return [item.id for item in list_items([str(path) for path in inputs], ANY)]


def contents(items: list[Item], column: str | None = None) -> list[bytes]:
    return [load() for load in loads(items, Tables(column))]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_table(path: Path, rows: int = 10, group: int = 3, **columns: pyarrow.Array) -> Path:
    images = pyarrow.array([b"image %d" % row for row in range(rows)])
    table = pyarrow.table(columns or {"image": images})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def test_a_folder_lists_files_before_folders_sorted_without_hidden_ones(tmp_path):
    for name in ("b.jpg", "a/z.PNG", "a/c.webp", ".hidden.jpg", "notes.txt", "a10.jpg", "a9.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = ["a10.jpg", "a9.jpg", "b.jpg", "a/c.webp", "a/z.PNG"]
    assert names(tmp_path) == [f"{tmp_path}/{name}" for name in expected]


def test_several_inputs_keep_their_order_and_a_pattern_is_sorted(tmp_path):
    for name in ("b/2.jpg", "b/1.jpg", "a/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [Path(name).stem for name in names(tmp_path / "b/*.jpg", tmp_path / "a")] == list("123")


def test_a_tar_files_images_are_read_from_where_they_lie(tmp_path):
    members = {
        "0001.jpg": b"first",
        "0001.json": b"{}",
        "0001.cls": b"7",
        "deep/0002.input.PNG": b"second" * 500,
        "deep/._0003.jpg": b"a Mac's",
    }
    path = write_tar(tmp_path / "part.tar", members)
    items = list(list_items([str(path)], ANY))
    assert [item.id for item in items] == [f"{path}/0001.jpg", f"{path}/deep/0002.input.PNG"]
    assert contents(items) == [b"first", b"second" * 500]


@pytest.mark.parametrize("damage", ["cut in a header", "cut between members", "no header"])
def test_a_tar_file_ends_where_it_says_so(damage, tmp_path):
    path = write_tar(tmp_path / "part.tar", {f"{i}.jpg": b"x" for i in range(6)})
    whole = path.read_bytes()
    second = 2 * tarfile.BLOCKSIZE  # after a header and a block of content
    path.write_bytes(
        {
            "cut in a header": whole[: second + 100],
            "cut between members": whole[:second],
            "no header": whole[:second] + b"?" * tarfile.BLOCKSIZE + whole[second + 512 :],
        }[damage]
    )
    with pytest.raises(InputError, match="cut short or damaged"):
        names(path)


def test_a_tar_file_that_goes_on_after_its_end_is_an_error(tmp_path):
    """Such as two in one: the second's images would be missing without a word."""
    one, two = (write_tar(tmp_path / f"{i}.tar", {f"{i}.jpg": b"x"}) for i in (1, 2))
    (both := tmp_path / "both.tar").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(InputError, match=r"both\.tar' goes on after its first 1,024 bytes"):
        names(both)
    both.write_bytes(one.read_bytes() + bytes(3 << 20))
    assert names(both) == [f"{both}/1.jpg"]


def header(kind, size):
    """Of a tar file's member, which says that so many bytes follow it, or none that is."""
    made = tarfile.TarInfo("1.jpg")
    made.type, made.size = kind, size
    return made.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-512, -1024])
def test_a_tar_file_that_leads_back_is_an_error(kind, size, tmp_path):
    """Found by mutation: it was read for ever."""
    path = tmp_path / "part.tar"
    path.write_bytes(2 * header(kind, size) + bytes(1024))
    with pytest.raises(InputError, match=f"a header says that {size:,} bytes follow it"):
        names(path)


def write_settings(path: Path, settings: dict[str, str]) -> Path:
    """A tar file of two images, the second of which has these PAX settings before it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, pax in {"0.png": {}, "1.png": settings}.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 600, pax
            tar.addfile(member, io.BytesIO(600 * b"a"))
    return path


@pytest.mark.parametrize("size", [-512, -1536, -1537, -3072, -(10**6)])
def test_or_one_whose_settings_lead_back(size, tmp_path):
    """They replace the header's size."""
    path = write_settings(tmp_path / "part.tar", {"size": str(size)})
    with pytest.raises(InputError, match=r"damaged: it leads back at '1.png'"):
        names(path)


def test_an_image_with_its_zeros_left_out_is_an_error(tmp_path):
    """It was passed over without a word."""
    path = write_settings(tmp_path / "part.tar", {"GNU.sparse.map": "1,2"})
    with pytest.raises(InputError, match=r"holds '1.png' with its zeros left out"):
        names(path)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_so_is_one_that_is_a_link(kind, tmp_path):
    with tarfile.open(path := tmp_path / "part.tar", "w") as tar:
        member = tarfile.TarInfo("1.png")
        member.type, member.linkname = kind, "0.png"
        tar.addfile(member)
    with pytest.raises(InputError, match=r"holds '1.png' as no plain file"):
        names(path)


def test_so_is_one_whose_extensions_take_long(tmp_path):
    """Of a megabyte of digits, Python searches 10¹² places."""
    path = tmp_path / "part.tar"
    path.write_bytes(header(tarfile.XHDTYPE, 1 << 20) + b"9" * (1 << 20) + bytes(1024))
    with pytest.raises(InputError, match="a header says that 1,048,576 bytes follow it"):
        names(path)


def test_and_a_table_with_names_that_are_no_text(tmp_path):
    """Found by mutation."""
    table = pyarrow.table({"images": [b"1"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(b"images", b"\xbfmages"))
    with pytest.raises(InputError, match="not a Parquet table"):
        names(tmp_path / "t.parquet")


def test_a_tables_rows_are_read_across_row_groups(tmp_path):
    path = write_table(tmp_path / "table.parquet")
    items = list(list_items([str(path)], ANY))
    assert [item.id for item in items] == [f"{path}#{row}" for row in range(10)]
    for first, last in [(0, 10), (2, 4), (3, 6), (5, 10), (9, 10)]:
        expected = [b"image %d" % row for row in range(first, last)]
        assert contents(items[first:last]) == expected


def test_a_table_is_decoded_once_where_it_is_read_onward(tmp_path, monkeypatch):
    path = str(write_table(tmp_path / "table.parquet", rows=100, group=64))
    decoded = []

    class Counting(pyarrow.parquet.ParquetFile):
        def iter_batches(self, *arguments: Any, **options: Any) -> Iterator[pyarrow.RecordBatch]:
            for batch in super().iter_batches(*arguments, **options):
                decoded.append(len(batch))
                yield batch

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", Counting)
    tables = Tables(None)
    for first in range(0, 100, 5):
        rows = list(tables.rows(path, first, 5))
        assert rows == [b"image %d" % row for row in range(first, first + 5)]
    assert sum(decoded) == 100
    for first, expected in [(70, 8), (90, 24), (3, 8), (65, 8)]:
        decoded.clear()
        assert list(tables.rows(path, first, 2)) == [b"image %d" % r for r in (first, first + 1)]
        assert sum(decoded) == expected


def test_rows_that_a_table_does_not_have_are_an_error(tmp_path):
    tables, path = Tables(None), str(write_table(tmp_path / "table.parquet"))
    with pytest.raises(InputError, match="has 10 rows, and none of number 10"):
        list(tables.rows(path, 10, 1))
    with pytest.raises(InputError, match="has no row 10"):
        list(tables.rows(path, 8, 3))
    assert list(tables.rows(path, 8, 2)) == [b"image 8", b"image 9"]


def test_a_table_of_hugging_face_has_its_bytes_in_a_struct(tmp_path):
    pictures = [{"bytes": b"a", "path": "a.jpg"}, {"bytes": b"b", "path": None}, None]
    path = write_table(
        tmp_path / "table.parquet",
        image=pyarrow.array(pictures),
        label=pyarrow.array([1, 2, 3]),
        url=pyarrow.array(["u1", "u2", "u3"]),
    )
    items = list(list_items([str(path)], Columns(id="url")))
    assert [item.id for item in items] == ["u1", "u2", "u3"]
    assert contents(items[:2]) == [b"a", b"b"]
    with pytest.raises(InputError, match=r"row 2 of .* has no image"):
        contents(items[2:])


def test_which_column_has_the_images_must_be_clear(tmp_path):
    binary = pyarrow.array([b"x"])
    two = write_table(tmp_path / "two.parquet", left=binary, right=binary)
    with pytest.raises(InputError, match="image_column= names one of left, right"):
        names(two)
    items = list(list_items([str(two)], Columns(image="right")))
    assert contents(items, "right") == [b"x"]
    none = write_table(tmp_path / "none.parquet", number=pyarrow.array([1]))
    with pytest.raises(InputError, match=r"no column holds encoded images .* number"):
        names(none)
    with pytest.raises(InputError, match="no column 'url' for id_column=; the table has left"):
        list(list_items([str(two)], Columns("left", "url")))


def test_a_folder_without_images_is_searched_for_tar_files_and_tables(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    write_table(tmp_path / "b.parquet", rows=1)
    assert names(tmp_path) == [f"{tmp_path}/a.tar/1.jpg", f"{tmp_path}/b.parquet#0"]
    (tmp_path / "c.jpg").write_bytes(b"x")
    assert names(tmp_path) == [f"{tmp_path}/c.jpg"]


def test_inputs_that_overlap_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.jpg' is named by two of the inputs"):
        names(tmp_path, tmp_path / "*.jpg")


@pytest.mark.parametrize("pattern", ["**", "**/*", "*", "[d]*/**"])
def test_a_pattern_may_match_a_folder_and_what_is_in_it(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    below = tmp_path / "d" / "e"
    below.mkdir(parents=True)
    for folder in (below, below.parent):
        (folder / "a.jpg").write_bytes(b"x")
    assert [os.path.normpath(name) for name in names(pattern)] == ["d/a.jpg", "d/e/a.jpg"]
    assert names(tmp_path / pattern) == [f"{tmp_path}/d/a.jpg", f"{tmp_path}/d/e/a.jpg"]


def test_an_input_without_images_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no image found at"):
        names(tmp_path)
    with pytest.raises(InputError, match="no image found at"):
        names(tmp_path / "missing*.jpg")


def test_damaged_and_compressed_containers_are_errors_that_name_them(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {"1.jpg": b"x" * 5000, "2.jpg": b"x" * 5000})
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:8000])
    with pytest.raises(InputError, match=r"cut\.tar"):
        names(cut)
    (tmp_path / "no.tar").write_bytes(b"nonsense" * 100)
    with pytest.raises(InputError, match=r"no\.tar' is not a tar file"):
        names(tmp_path / "no.tar")
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="uncompress it first"):
        names(tmp_path / "a.tar.gz")
    (tmp_path / "no.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"no\.parquet' is not a Parquet table"):
        names(tmp_path / "no.parquet")


def test_an_image_that_went_away_says_so_when_it_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    items = list(list_items([str(tmp_path)], ANY))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg' cannot be read: No such file"):
        contents(items)
