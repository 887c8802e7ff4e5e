"""Where scores are kept: while they are made, and in tables once all are there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import make_folder, replacing
from onnxplain.reading import parsed
from onnxplain.reading import text as text_of

TABLE, JSON, PAGE, UNFINISHED = (
    *("scores.parquet", "scores.json", "index.html", "unfinished.json"),
)

_SECONDS = 5


@dataclass(frozen=True)
class Score:
    """What a metric says of a graph's explanation of an image.

    Attributes:
        cell: of all that it depends on; a score whose cell is known is not computed again.
        graph: as the table calls it.
        method: its method, with the parameters.
        image: as the table calls it.
        target: the class explained; -1 where the image cannot be used.
        metric: by name.
        score: None where there is none.
        error: why; else empty.
    """

    cell: str
    graph: str
    method: str
    image: str
    target: int
    metric: str
    score: float | None
    error: str = ""


class Store:
    """The scores in a folder, or of no folder, in memory alone.

    While they are made they are kept in `UNFINISHED`, which is written anew every few seconds: that
    much a kill can cost.
    """

    def __init__(self, folder: Path | None) -> None:
        """
        Raises:
            InputError: the folder cannot be made, or what is in it cannot be read.
        """
        self.folder = folder
        self.known: dict[str, Score] = {}
        self._saved = time.monotonic()
        if folder is None:
            return
        make_folder(folder)
        for score in (*_of_table(folder / TABLE), *_of_unfinished(folder / UNFINISHED)):
            self.known[score.cell] = score

    def add(self, score: Score) -> None:
        """
        Raises:
            InputError: it cannot be written.
        """
        self.known[score.cell] = score
        if time.monotonic() - self._saved > _SECONDS:
            self.save()

    def save(self) -> None:
        """Keep what there is, to go on from.

        Raises:
            InputError: it cannot be written.
        """
        if self.folder is None:
            return
        with replacing(self.folder / UNFINISHED) as beside:
            beside.write_text(json.dumps([asdict(score) for score in self.known.values()]))
        self._saved = time.monotonic()

    def finish(self, scores: Iterable[Score], about: Mapping[str, Any]) -> None:
        """Write the tables, of these scores in their order.

        Args:
            about: what stands in the JSON file besides.

        Raises:
            InputError: they cannot be written.
        """
        if self.folder is None:
            return
        rows = [asdict(score) for score in scores]
        _write_table(self.folder / TABLE, rows)
        with replacing(self.folder / JSON) as beside:
            text = json.dumps({**about, "scores": rows}, indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")
        (self.folder / UNFINISHED).unlink(missing_ok=True)


def _of_unfinished(path: Path) -> Iterable[Score]:
    if not path.is_file():
        return
    try:
        for row in parsed(text_of(path)):
            yield Score(**row)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' holds no scores ({error}): remove it") from error


def _of_table(path: Path) -> Iterable[Score]:
    if not path.is_file():
        return
    import pyarrow
    from pyarrow import parquet

    try:
        for row in parquet.read_table(path).to_pylist():
            yield Score(**row)
    except (pyarrow.ArrowException, TypeError) as error:
        raise InputError(f"'{path}' is no table of scores: {error}") from error


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    strings = {name: pyarrow.string() for name in Score.__dataclass_fields__}
    types = {**strings, "target": pyarrow.int64(), "score": pyarrow.float64()}
    with replacing(path) as beside:
        parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), beside)
