"""What the runtimes keep comes back as it was, or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from onnxplain.runtime import cache
from onnxplain.runtime.cache import cache_folder, hashed, load, save

DATA = bytes(range(256)) * 9


@pytest.fixture
def path() -> Path:
    return cache_folder("things") / "a.thing"


@pytest.mark.parametrize("data", [DATA, b""])
def test_what_was_kept_comes_back(path: Path, data: bytes) -> None:
    save(path, b"another")
    save(path, data)
    assert load(path) == data
    assert [file.name for file in path.parent.iterdir()] == ["a.thing"]


def test_where_nothing_was_kept_is_nothing_and_no_warning(path: Path) -> None:
    with warnings.catch_warnings(action="error"):
        assert load(path) is None


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_a_byte_that_changed_is_a_warning_and_nothing(path: Path, at: int) -> None:
    save(path, DATA)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"a\.thing' is damaged, and made anew"):
        assert load(path) is None


@pytest.mark.parametrize("length", [0, 5, 32, 100])
def test_a_file_cut_short_is_a_warning_and_nothing(path: Path, length: int) -> None:
    save(path, DATA)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match="is damaged"):
        assert load(path) is None


def test_what_cannot_be_kept_is_a_warning(path: Path) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("in the way")
    with pytest.warns(UserWarning, match="the cache cannot be kept"):
        save(path, DATA)


def test_what_was_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (cache_folder("things") / name for name in "abc")
    for seconds, path in enumerate((a, b)):
        save(path, DATA)
        os.utime(path, (seconds, seconds))
    assert load(a) == DATA  # so that b was used longest ago
    monkeypatch.setattr(cache, "_ROOM", 2 * a.stat().st_size)
    save(c, DATA)
    assert (load(a), load(b), load(c)) == (DATA, None, DATA)


def test_what_is_larger_than_all_room_is_kept_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (cache_folder("things") / name for name in "ab")
    save(a, DATA)
    monkeypatch.setattr(cache, "_ROOM", 5)
    save(b, DATA)
    assert (load(a), load(b)) == (None, DATA)


def test_a_name_is_that_of_all_that_the_content_depends_on() -> None:
    assert hashed({"a": 1, "b": [2]}) == hashed({"b": [2], "a": 1})
    assert hashed({"a": 1, "b": [2]}) != hashed({"a": 1, "b": [3]})
