"""Where the command line speaks: results on standard output, all else on standard error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from onnxplain.files import size_on_disk
from onnxplain.printable import printable

if TYPE_CHECKING:
    from onnxplain.runtime import Explainer

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """A result."""
    _plain(out, line)


def note(line: str) -> None:
    """What is good to know beside the result."""
    _plain(err, line)


class Notes(logging.Handler):
    """Where the logger `onnxplain` is heard on the command line, in the command line's words."""

    def __init__(self, worded: Callable[[str], str]) -> None:
        super().__init__()
        self.worded = worded

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "onnxplain":  # the service's logger, below it, has a format of its own
            note(f"note: {self.worded(record.getMessage())}")


def complain(line: str) -> None:
    """Something that went wrong, while the rest goes on."""
    _plain(err, line, "red")


def shown(text: object) -> str:
    """Text from a file for a table or a title: no markup, no control characters."""
    return escape(printable(str(text)))


def sentence(text: str) -> str:
    """The same of what may have several lines, of which the first alone begins at the margin: a
    name within cannot look like a line of its own."""
    return escape(_lines(text))


def note_backend(explainer: Explainer) -> None:
    """What explains here."""
    backend = explainer.backend
    note(f"{backend.name} on {backend.device} in {backend.precision}")


def file_size(path: Path) -> str:
    """The size of a file, with the external weights that lie beside it."""
    size = size_on_disk(path)
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _plain(console: Console, line: str, style: str | None = None) -> None:
    """The line as it is: a path is not wrapped, and its brackets are no markup."""
    line = _lines(line)
    console.print(line, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _lines(text: str) -> str:
    return printable(text).replace("\n", "\n  ")
