"""The command `onnxplain stream`."""

from __future__ import annotations

import re
import sys

import pytest
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.errors import BackendError, InputError
from onnxplain.stream.window import Window

from .conftest import times


def run(*arguments: object):
    return CliRunner().invoke(app, ["stream", *map(str, arguments)])


def test_a_file_becomes_a_file_and_the_frames_are_counted(lite0, colours, tmp_path):
    path = tmp_path / "why.mp4"
    ran = run(lite0, colours, "-o", path, "--provider", "cpu")
    assert ran.exit_code == 0, ran.output
    counts = re.search(r"(\d+) frames read, (\d+) explained, (\d+) dropped", ran.stdout)
    read, explained, dropped = map(int, counts.groups())
    assert read == 15 == explained + dropped
    assert len(times(path)) == explained
    assert set(times(path)) <= set(times(colours))


def test_without_a_display_it_says_where_else_frames_can_go(lite0, colours, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    ran = run(lite0, colours, "--provider", "cpu")
    assert ran.exit_code == BackendError.exit_code
    assert "--out" in ran.stderr
    assert "--http" in ran.stderr


def test_without_tk_a_window_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(BackendError, match=r"apt install python3-tk;.*or write a file with --out"):
        Window("film")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mp4", "-o", "a.mp4"], "no such file: 'missing.mp4'"),
        (["VIDEO", "-o", "a.txt"], "does not have the suffix of a video container"),
        (["VIDEO", "-o", "a.mp4", "-t", "5000"], "target 5000 is out of range"),
    ],
)
def test_what_cannot_be_is_a_sentence(lite0, colours, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    arguments = [colours if argument == "VIDEO" else argument for argument in arguments]
    ran = run(lite0, *arguments, "--provider", "cpu")
    assert ran.exit_code == InputError.exit_code
    assert said in ran.stderr
