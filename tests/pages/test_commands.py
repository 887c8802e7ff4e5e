"""The commands that the pages show are ones that onnxplain has, with these options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from onnxplain.cli import app

from .markdown import PAGES, blocks, shown


def commands(page: Path) -> list[list[str]]:
    """The arguments of `onnxplain`, a command each; what the shell does with them is left out."""
    code = "".join(blocks(page, "bash", "sh", "console")).replace("\\\n", " ")
    lines = [part for line in code.splitlines() for part in line.split("&&")]
    found = [shlex.split(line, comments=True) for line in lines if "onnxplain " in line]
    return [words[words.index("onnxplain") + 1 :] for words in found if "onnxplain" in words]


SHOWN = [(page, " ".join(words), words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    "words", [w for *_, w in SHOWN], ids=[f"{shown(p)}: {said}" for p, said, _ in SHOWN]
)
def test_a_shown_command_is_understood(words: list[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("onnxplain", list(words))
    while hasattr(context.command, "resolve_command"):
        name, command, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        try:
            context = command.make_context(name, rest, parent=context)
        except typer.BadParameter as error:  # what it speaks of is not here
            assert re.search("does not exist|no such file", str(error), re.IGNORECASE)  # noqa: PT017
            return


def test_commands_are_found() -> None:
    assert len(SHOWN) > 90
