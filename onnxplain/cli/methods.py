"""The command `onnxplain methods`."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import out, say, shown
from onnxplain.extras import EXPORTING, require

_WIDE = 160
"""Columns of a terminal from which on all that is known of each has room beside it."""
_LONGEST_NAME, _COST = 28, 9  # columns below it
_OF_ONE = "cost in forwards", "needs", "source"


@command
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, to see its parameters.", show_default=False),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a table for a page.", show_default=False)
    ] = False,
) -> None:
    """List what an explanation can be composed of: methods, rules of their layers, estimators
    and objectives, with their cost in forward passes, what they need and what they are good for.

    \b
        onnxplain methods
        onnxplain methods integrated-gradients      # what it needs, its source, its parameters
    """
    require("export", "listing the methods", EXPORTING)
    from onnxplain.export.catalogue import COLUMNS, as_markdown, catalogue

    if name is not None:
        _one(name)
        return
    if markdown:
        for line in as_markdown(catalogue()).splitlines():
            say(line)
        return
    if out.width < _WIDE:
        _in_short()
        return
    table = Table(*COLUMNS, title="What an explanation can be composed of", title_justify="left")
    for entry in catalogue():
        table.add_row(*map(shown, entry))
    out.print(table, highlight=False)


def _in_short() -> None:
    """A table of each kind, of what fits into a usual terminal."""
    from onnxplain.export.catalogue import catalogue

    for kind, entries in groupby(catalogue(), lambda entry: entry.kind):
        table = Table(box=None, pad_edge=False)
        table.add_column(f"{kind}s", no_wrap=True, min_width=_LONGEST_NAME)
        table.add_column("forwards", width=_COST)
        table.add_column("good for")
        for entry in entries:
            table.add_row(*map(shown, (entry.name, entry.forwards, entry.good_for)))
        out.print(table, highlight=False)
        say("")
    say("forwards: the cost in forward passes. What one needs, its source and its parameters:")
    say("  onnxplain methods NAME")


def _one(name: str) -> None:
    """
    Raises:
        SourceError: there is none of that name.
    """
    from onnxplain.export.catalogue import COLUMNS, entry_called, parameters_of

    entry = entry_called(name)
    say(f"{entry.kind} {entry.name}: {entry.good_for}")
    for column, text in zip(COLUMNS, entry, strict=True):
        if text and column in _OF_ONE:
            say(f"  {column}: {text}")
    rows = parameters_of(entry)
    table = Table("parameter", "default", "may be", "what it is")
    for row in rows:
        table.add_row(*map(shown, row))
    if rows:
        out.print(table, highlight=False)
