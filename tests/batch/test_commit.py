"""A shard is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

import pytest

from onnxplain.batch.commit import Folder, durable
from onnxplain.errors import InputError


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "out")
    with folder.held():
        pass
    folder.plan.write_text("{}")
    return folder


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with suppress(KeyError), durable(path) as beside:
        beside.write_text("half of what ca")
        raise KeyError
    assert path.read_text() == "before"
    with durable(path) as beside:
        beside.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_says_what_the_part_holds(folder):
    folder.part(3).write_bytes(b"content")
    assert folder.committed(3) is None  # killed between the part and its record
    record = folder.commit(3, rows=5, errors=1)
    assert folder.committed(3) == record
    assert (record.rows, record.errors, record.bytes) == (5, 1, 7)
    assert record.sha256 == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("damage", ["part missing", "part cut short", "record cut short"])
def test_a_damaged_shard_is_made_again(folder, damage):
    folder.part(0).write_bytes(b"content")
    folder.commit(0, rows=5, errors=0)
    record = next(folder.commits.iterdir())
    if damage == "part missing":
        folder.part(0).unlink()
    elif damage == "part cut short":
        folder.part(0).write_bytes(b"cont")
    else:
        record.write_text(json.dumps(json.loads(record.read_text()))[:20])
    assert folder.committed(0) is None


def test_one_run_at_a_time(folder):
    with (
        folder.held(),
        pytest.raises(InputError, match="another run is writing"),
        Folder(folder.path).held(),
    ):
        pass
    with folder.held():  # and again when the first is over
        pass


def test_what_a_killed_run_was_writing_is_removed(folder):
    left = folder.table / ".0123456789abcdef.parquet"
    left.write_bytes(b"half")
    folder.part(0).write_bytes(b"content")
    with folder.held():
        assert list(folder.table.iterdir()) == [folder.part(0)]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"), Folder(tmp_path / "file").held():
        pass


def test_a_shard_of_another_plan_is_made_again(folder):
    folder.part(0).write_bytes(b"content")
    record = folder.commit(0, rows=5, errors=0)
    folder.plan.write_text('{"images": 7}')
    assert folder.committed(0) is None
    folder.plan.write_text("{}")
    assert folder.committed(0) == record
