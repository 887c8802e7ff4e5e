"""What is written is there as a whole or not at all, and nothing is left lying about."""

from __future__ import annotations

import os
import signal
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
