"""Files that are on disk completely or not at all, and the record of a finished shard."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import clear, replacing
from onnxplain.reading import parsed, sha256


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` once it is on disk.

    After a crash of the process or the machine, `path` is what it was before, or completely new.
    The temporary name begins with a dot, so that readers of a folder of tables skip it.

    Raises:
        InputError: the path cannot be written.
    """
    with replacing(path) as beside:
        yield beside
        _sync(beside)
    _sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write JSON durably.

    Raises:
        InputError: the path cannot be written.
    """
    with durable(path) as beside:
        beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Record:
    """The record of a finished shard.

    `file` is its name in `table/`; `bytes` and `sha256` are its content's; `plan` is the SHA-256 of
    the plan that it followed.
    """

    shard: int
    file: str
    rows: int
    errors: int
    bytes: int
    sha256: str
    plan: str


class Folder:
    """The output: `plan.json`, `listing.parquet`, `table/`, `commits/`, `manifest.json`.

    A shard is finished when `commits/` has its record and `table/` its file. The file is put in
    place first and the record second: without the record the shard is made again, and replaces its
    file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan, self.manifest = path / "plan.json", path / "manifest.json"
        self.listing = path / "listing.parquet"
        self.table, self.commits = path / "table", path / "commits"

    def part(self, shard: int) -> Path:
        """The path of a shard's part of the table."""
        return self.table / f"part-{shard:06d}.parquet"

    def commit(self, shard: int, rows: int, errors: int) -> Record:
        """Record that a shard's part, which is in place, is complete."""
        part = self.part(shard)
        size, plan = part.stat().st_size, self._plan_digest()
        record = Record(shard, part.name, rows, errors, size, sha256(part), plan)
        write_json(self._record(shard), asdict(record))
        return record

    def committed(self, shard: int) -> Record | None:
        """The record of a shard, if it was finished by the current plan."""
        try:
            record = Record(**parsed(self._record(shard).read_text("utf-8")))
            whole = self.part(shard).stat().st_size == record.bytes
            return record if whole and record.plan == self._plan_digest() else None
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def attempts(self, shard: int) -> Path:
        """The file that notes the attempts at a shard; see `Attempt`."""
        return self.commits / f".{shard:06d}.attempts"

    def empty(self) -> None:
        """Remove what was made by another plan, of which no shard was finished."""
        self.manifest.unlink(missing_ok=True)
        for part in self.table.glob("part-*.parquet"):
            part.unlink()

    def clean(self) -> None:
        """Remove what killed processes left unfinished. Nobody else may be writing."""
        for folder in (self.path, self.table, self.commits):
            clear(folder)
            for left in folder.glob(".*.*"):
                left.unlink(missing_ok=True)

    def _plan_digest(self) -> str:
        return sha256(self.plan)

    def _record(self, shard: int) -> Path:
        return self.commits / f"{shard:06d}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context that creates the folders, and is the only run that writes into them.

        What an earlier run was writing when it was killed is removed.

        Raises:
            InputError: another run has the folder, or it cannot be written.
        """
        try:
            for folder in (self.path, self.table, self.commits):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise InputError(f"cannot write into '{self.path}': {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"another run is writing into '{self.path}'") from None
            self.clean()
            yield
