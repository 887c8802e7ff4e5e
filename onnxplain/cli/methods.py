"""The command `onnxplain methods`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import out, say, shown
from onnxplain.extras import EXPORTING, require


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
        onnxplain methods integrated-gradients      # its parameters
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
    table = Table(title="What an explanation can be composed of", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column == "name")
    for entry in catalogue():
        table.add_row(*map(shown, entry))
    out.print(table, highlight=False)


def _one(name: str) -> None:
    """
    Raises:
        SourceError: there is none of that name.
    """
    from onnxplain.export.catalogue import catalogue, parameters_of

    rows = parameters_of(name)
    for entry in catalogue():
        if entry.name == name:
            source = f" ({entry.source})" if entry.source else ""
            say(f"{entry.kind} {name}: {entry.good_for}{source}")
    table = Table("parameter", "default", "may be", "what it is")
    for row in rows:
        table.add_row(*map(shown, row))
    if rows:
        out.print(table, highlight=False)
