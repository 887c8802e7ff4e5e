"""What `onnxplain explain` writes for several files: under names of their own, and as JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxplain.printable import printable


def free_stems(paths: Sequence[Path], folder: Path, suffixes: Sequence[str]) -> list[str]:
    """`cat` for `a/cat.jpg`, `cat-2` for `b/cat.jpg`; with none of the suffixes the name of another
    file that is written, or of one that is read."""
    taken = {path.resolve() for path in paths}
    stems = []
    for path in paths:
        for n in itertools.count(1):
            stem = path.stem if n == 1 else f"{path.stem}-{n}"
            own = {(folder / f"{stem}{suffix}").resolve() for suffix in suffixes}
            if taken.isdisjoint(own):
                break
        taken |= own
        stems.append(stem)
    return stems


def json_line(entry: Any) -> str:
    """A line of valid JSON: null in place of NaN and infinity. It is of ASCII where it would move a
    terminal's cursor, or be no UTF-8."""
    line = json.dumps(_valid(entry), ensure_ascii=False, allow_nan=False)
    plain = line if printable(line) == line else json.dumps(_valid(entry), allow_nan=False)
    return f"{plain}\n"


def _valid(entry: Any) -> Any:
    match entry:
        case float():
            return entry if math.isfinite(entry) else None
        case list():
            return [_valid(one) for one in entry]
        case dict():
            return {name: _valid(one) for name, one in entry.items()}
    return entry
