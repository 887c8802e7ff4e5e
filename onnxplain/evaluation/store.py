"""Where scores are kept: a journal while they are made, and tables once all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import replacing

TABLE, JSON, PAGE, JOURNAL = "scores.parquet", "scores.json", "index.html", "unfinished.jsonl"


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

    A score is in the journal once it is computed, a line each. A line that a kill cut off is not
    one.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.known: dict[str, Score] = {}
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for score in (*_of_table(folder / TABLE), *_of_journal(folder / JOURNAL)):
                self.known[score.cell] = score
            self._journal = (folder / JOURNAL).open("a", encoding="utf-8")
            self._journal.write("\n")  # what was cut off stays a line of its own
        except OSError as error:
            raise InputError(f"cannot write into '{folder}': {error.strerror or error}") from error

    def add(self, score: Score) -> None:
        self.known[score.cell] = score
        if self.folder is not None:
            self._journal.write(json.dumps(asdict(score)) + "\n")
            self._journal.flush()

    def finish(self, scores: Iterable[Score], about: Mapping[str, Any]) -> None:
        """Write the tables, of these scores in their order, and do without the journal.

        Args:
            about: what stands in the JSON file besides.
        """
        if self.folder is None:
            return
        rows = [asdict(score) for score in scores]
        _write_table(self.folder / TABLE, rows)
        with replacing(self.folder / JSON) as beside:
            text = json.dumps({**about, "scores": rows}, indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")
        self._journal.close()
        (self.folder / JOURNAL).unlink()


def _of_journal(path: Path) -> Iterable[Score]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Score(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut off


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

    text = {name: pyarrow.string() for name in Score.__dataclass_fields__}
    types = {**text, "target": pyarrow.int64(), "score": pyarrow.float64()}
    with replacing(path) as beside:
        parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), beside)
