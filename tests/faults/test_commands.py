"""What a command writes is in the making in a scratch folder, whatever moment it is killed at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onnxplain.cli import app

from .commands import COMMANDS, material

_listening: list[list[tuple[str, tuple[Any, ...]]]] = []


def _listen(event: str, given: tuple[Any, ...]) -> None:
    for events in _listening:
        events.append((event, given))


@contextmanager
def events() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """What Python's audit hooks are told meanwhile."""
    if not hasattr(sys, "_onnxplain_listens"):
        sys.addaudithook(_listen)  # for ever
        sys._onnxplain_listens = True  # type: ignore[attr-defined]
    _listening.append(found := [])
    try:
        yield found
    finally:
        _listening.remove(found)


def written(event: str, given: tuple[Any, ...]) -> Path | None:
    """The file that an event creates or changes in place."""
    if event == "open" and isinstance(given[0], str | os.PathLike) and isinstance(given[2], int):
        if given[2] & (os.O_WRONLY | os.O_RDWR):
            return Path(given[0])
    return None


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    material(folder := tmp_path_factory.mktemp("material"))
    return folder


IN_PLACE = {"attempts", ".lock"}


@pytest.mark.parametrize("name", [*COMMANDS])
def test_nothing_is_written_in_place(name: str, at: Path, tmp_path: Path) -> None:
    arguments = [str(argument) for argument in COMMANDS[name](at, tmp_path)]
    with events() as seen:
        ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    paths = {path for event, given in seen if (path := written(event, given)) is not None}
    made = {path for path in paths if path.absolute().is_relative_to(tmp_path)}
    assert [path for path in made if ".onnxplain-" not in str(path)] == []
    assert [*tmp_path.rglob(".onnxplain-*")] == []
