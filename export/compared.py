"""A file beside what it was made of, before it takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from onnxplain.errors import SourceError, UnfinishedError
from onnxplain.export.guard import own_errors


def compared(
    path: Path, comparisons: Iterable[Callable[[], str | None]], done: str = "exported"
) -> Iterator[str]:
    """What is to be noted of comparing a file, which shall be `path`, with its source.

    Args:
        comparisons: those of `onnxplain.comparison`, of what they compare.
        done: what is done to the network.

    Raises:
        SourceError: they differ.
    """
    for compare in comparisons:
        try:
            with own_errors(done):
                note = compare()
        except UnfinishedError as error:
            note = f"not checked: {error}, on noise"
        except SourceError as error:
            raise SourceError(
                f"'{path}' is not right: {error}; check=False leaves this out"
            ) from error
        if note is not None:
            yield note
