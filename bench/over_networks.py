"""A measurement network by network: its command line, and its going on where it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from onnxplain.bench.progress import progress_bar
from onnxplain.files import replacing
from onnxplain.machine import machine

_Part = TypeVar("_Part")
_Row = TypeVar("_Row")


def add_options(parser: argparse.ArgumentParser, quick: str) -> None:
    """
    Args:
        quick: what `--quick` does.
    """
    parser.add_argument("networks", nargs="*", help="These alone; else all.")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--again", action="store_true", help="Also what has been measured.")


def chosen(
    parser: argparse.ArgumentParser,
    given: argparse.Namespace,
    networks: Mapping[str, Any],
    quick: Mapping[str, Any],
) -> dict[str, Any]:
    """The networks asked for; of names that are none the parser says so, and ends."""
    known = quick if given.quick else networks
    if unknown := {*given.networks} - {*known}:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in given.networks or known}


def measure(
    parts: Mapping[str, Sequence[_Part]],
    done: Callable[[str, _Part], bool],
    compare: Callable[[str, Sequence[_Part]], Iterable[_Row]],
    keep: Callable[[_Row], object],
    rows: int = 1,
) -> None:
    """Keep every row as it is made, under a bar of all.

    Args:
        parts: what is to be measured, by network.
        done: whether it has been.
        compare: makes the rows of a network's parts that have not.
        rows: of each part.
    """
    with progress_bar() as progress:
        task = progress.add_task("", total=rows * sum(map(len, parts.values())))
        for name, asked in parts.items():
            left = [part for part in asked if not done(name, part)]
            progress.advance(task, rows * (len(asked) - len(left)))
            progress.update(task, description=name)
            for row in compare(name, left) if left else ():
                keep(row)
                progress.advance(task)


def known(path: Path) -> dict[str, Any]:
    """What has been measured; nothing where there is no file."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def keep(path: Path, part: str, value: Any) -> None:
    """Write one part of what has been measured; the others stay."""
    found = {**known(path), "machine": machine(), part: value}
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def keep_row(
    path: Path,
    part: str,
    row: Mapping[str, Any],
    key: Callable[[Mapping[str, Any]], object],
    place: Callable[[Mapping[str, Any]], Any],
) -> None:
    """Write one row of a part, in the place of the one with the same key.

    Args:
        place: what the rows are sorted by.
    """
    others = [other for other in known(path).get(part, []) if key(other) != key(row)]
    keep(path, part, sorted([*others, row], key=place))
