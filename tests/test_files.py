"""What is written is there as a whole or not at all, and nothing is left lying about."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from onnxplain import files
from onnxplain.errors import InputError
from onnxplain.files import clear, replacing, scratch

KILLED = """
import os, signal
from pathlib import Path
from onnxplain.files import replacing, scratch
with {context} as path:
    (path if path.suffix else path / "f").write_text("the new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(context: str, temporary: Path) -> None:
    """A process that is killed within a context of `onnxplain.files`."""
    command = [sys.executable, "-c", KILLED.format(context=context)]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_cleared", set())


class TestReplacing:
    def test_a_file_takes_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "f.txt"
        path.write_text("the old")
        with replacing(path) as beside:
            beside.write_text("the new")
            assert path.read_text() == "the old"
        assert path.read_text() == "the new"
        assert [*tmp_path.iterdir()] == [path]

    def test_a_failure_leaves_the_old_one(self, tmp_path: Path) -> None:
        path = tmp_path / "f.txt"
        path.write_text("the old")
        with pytest.raises(UnicodeEncodeError), replacing(path) as beside:
            beside.write_text("the new \ud800", encoding="utf-8")
        assert path.read_text() == "the old"
        assert [*tmp_path.iterdir()] == [path]

    def test_so_does_a_killed_process_and_the_next_one_clears(self, tmp_path: Path) -> None:
        path = tmp_path / "f.txt"
        path.write_text("the old")
        killed(f"replacing(Path({str(path)!r}))", tmp_path)
        assert path.read_text() == "the old"
        assert len([*tmp_path.iterdir()]) == 2
        with replacing(tmp_path / "another.txt") as beside:
            beside.touch()
        assert {p.name for p in tmp_path.iterdir()} == {"f.txt", "another.txt"}

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        (tmp_path / "far").mkdir()
        (target := tmp_path / "far" / "f.bin").write_text("the old")
        (link := tmp_path / "f.txt").symlink_to("far/f.bin")
        with replacing(link) as beside:
            assert beside.suffix == ".txt"  # writers go by it
            beside.write_text("the new")
        assert link.is_symlink()
        assert target.read_text() == "the new"
        assert [*target.parent.iterdir()] == [target]

    def test_a_link_to_nothing_makes_what_it_names(self, tmp_path: Path) -> None:
        (link := tmp_path / "link").symlink_to("f")
        with replacing(link) as beside:
            beside.write_text("the new")
        assert link.is_symlink()
        assert (tmp_path / "f").read_text() == "the new"

    @pytest.mark.parametrize("through_a_link", [False, True])
    @pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
    def test_what_is_no_file_is_not_replaced(
        self, tmp_path: Path, kind: str, through_a_link: bool
    ) -> None:
        path = tmp_path / kind
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/null")
        before = path.stat().st_mode, path.stat().st_ino
        if through_a_link:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        with pytest.raises(InputError, match=f"it is a {kind}"), replacing(path):
            raise AssertionError("it was begun")
        assert (path.stat().st_mode, path.stat().st_ino) == before

    def test_nor_are_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(InputError, match="Too many"), replacing(tmp_path / "a"):
            pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission(self, tmp_path: Path) -> None:
        (folder := tmp_path / "closed").mkdir(0o500)
        with pytest.raises(InputError, match="Permission denied"), replacing(folder / "f"):
            pass

    def test_permissions_are_those_of_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "usual").touch()
        with replacing(tmp_path / "f") as beside:
            beside.touch()
        assert (tmp_path / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode


class TestScratch:
    def test_it_goes_at_the_end(self, tmp_path: Path) -> None:
        with scratch(tmp_path) as folder:
            (folder / "f").touch()
            assert folder.name.startswith(".onnxplain-")
        assert not [*tmp_path.iterdir()]

    def test_what_a_killed_process_left_goes_next_time(self, tmp_path: Path) -> None:
        killed("scratch()", tmp_path)
        assert [*tmp_path.iterdir()]
        with scratch(tmp_path) as folder:
            assert [*tmp_path.iterdir()] == [folder]

    def test_what_is_in_use_stays(self, tmp_path: Path) -> None:
        with scratch(tmp_path) as folder:
            clear(tmp_path)
            assert folder.is_dir()

    def test_so_does_what_is_of_others(self, tmp_path: Path) -> None:
        names = [".onnxplain-mine", "onnxplain-0123456789abcdef", ".0123456789abcdef"]
        for name in names:
            (tmp_path / name).mkdir()
        (elsewhere := tmp_path / "elsewhere").mkdir()
        (elsewhere / "f").touch()
        (tmp_path / ".onnxplain-0123456789abcdef").symlink_to(elsewhere)
        clear(tmp_path)
        assert all((tmp_path / name).is_dir() for name in names)
        assert (elsewhere / "f").exists()
