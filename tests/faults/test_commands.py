"""Commands that write, where that goes wrong: killed, a full disk, no permission, a clock set back.

A command that is killed leaves what was there, as all that it writes is in the making in a scratch
folder (`onnxplain.files`) and takes its place as a whole: so it suffices to see that nothing is
written elsewhere. `tests.faults.kills` does kill them.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.cli.app import commands
from onnxplain.errors import InputError

from .commands import COMMANDS, OLD, OVER_FILES, material
from .kills import KILLS, RESULTS

QUICK = ("export", "explain", "report", "kserve")
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.sweep) for name in COMMANDS]

_listening: list[list[Path]] = []


def _listen(event: str, given: tuple[Any, ...]) -> None:
    if _listening and event == "open":
        path, _, flags = given
        if isinstance(path, str | os.PathLike) and isinstance(flags, int) and flags & os.O_ACCMODE:
            _listening[-1].append(Path(path).absolute())


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_listen)  # which nothing removes


@contextmanager
def opened_for_writing() -> Iterator[list[Path]]:
    """The paths that Python opens for writing meanwhile."""
    _listening.append([])
    try:
        yield _listening[-1]
    finally:
        _listening.pop()


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    material(folder := tmp_path_factory.mktemp("material"))
    return folder


def run(name: str, at: Path, out: Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in COMMANDS[name](at, out)])


def with_old_files(name: str, at: Path, out: Path) -> list[Path]:
    """What the command writes, each file with something older in it."""
    if name not in OVER_FILES:
        return []
    assert run(name, at, out).exit_code == 0
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(OLD)
    return files


def is_refused(ran: Result, cause: str) -> None:
    assert ran.exit_code == InputError.exit_code, (ran.output, ran.exception)
    assert cause in " ".join(ran.stderr.split())


ELSEWHERE = {
    "batch": "tests/batch/test_ray.py kills it",
    "run-engine": "needs a GPU",
}
"""Other commands that write, by `onnxplain.files` too."""


def test_each_command_that_writes_is_known(at: Path, tmp_path: Path) -> None:
    writing = {
        command.name
        for command in commands(typer.main.get_command(app))
        for option in command.params
        if {"-o", "--triton"} & {*option.opts}
    }
    arguments = (COMMANDS[name](at, tmp_path) for name in COMMANDS)
    tried = {
        next(each for each in given if each not in ("--trust", "signal")) for given in arguments
    }
    assert writing == tried | ELSEWHERE.keys()


def test_each_was_killed() -> None:
    found = json.loads(RESULTS.read_text())["commands"]
    assert found.keys() == COMMANDS.keys()
    assert {name for name, each in found.items() if each["troubles"]} == set()
    assert {name for name, each in found.items() if each["killed"] < KILLS} == set()


@pytest.mark.parametrize("name", EACH)
def test_nothing_is_written_in_place(name: str, at: Path, tmp_path: Path) -> None:
    with opened_for_writing() as paths:
        ran = run(name, at, tmp_path)
    assert ran.exit_code == 0, ran.output
    made = [path for path in paths if path.is_relative_to(tmp_path)]
    assert [path for path in made if ".onnxplain-" not in str(path)] == []
    assert [*tmp_path.rglob(".onnxplain-*")] == []


@pytest.mark.parametrize("name", EACH)
def test_a_full_disk(name: str, at: Path, tmp_path: Path) -> None:
    """A limit on the size of files, which fails alike."""
    files = with_old_files(name, at, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        ran = run(name, at, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    is_refused(ran, "File too large")
    assert {path.read_bytes() for path in files} <= {OLD}
    assert [*tmp_path.rglob(".onnxplain-*")] == []


@pytest.mark.parametrize("name", EACH)
def test_no_permission(
    name: str, at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by the system of everything in the folder: root would have it."""
    files = with_old_files(name, at, tmp_path)
    make = os.mkdir

    def refuse(path: Any, mode: int = 0o777, **options: Any) -> None:
        if Path(path).is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        make(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    is_refused(run(name, at, tmp_path), "Permission denied")
    assert {path.read_bytes() for path in files} <= {OLD}


@pytest.mark.parametrize("name", EACH)
def test_a_clock_that_is_set_back(
    name: str, at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    ran = run(name, at, tmp_path)
    assert ran.exit_code == 0, (ran.output, ran.exception)


@pytest.mark.sweep
def test_kills() -> None:
    """About ten minutes."""
    command = [sys.executable, "-m", "tests.faults.kills"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
