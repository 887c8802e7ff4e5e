"""Finding the image that kills the process decoding it: a crash raises nothing to catch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from onnxplain.batch.reading import Prepared


class Attempt:
    """An attempt at a shard, noted in a file for whoever tries again if this process dies.

    From the second attempt on, the file also notes each image before it is decoded and once it has
    been. An image followed by nothing but the next attempt killed its process; from then on it is
    a row with an error.

    Attributes:
        number: 1 for the first in a run.
        deadly: the images that ended an earlier attempt, by their index in the shard.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note("attempt")
        notes = path.read_text("ascii")
        self.number = notes.count("attempt\n")
        self.deadly = {int(index) for index in re.findall(r"image (\d+)\nattempt\n", notes)}

    @property
    def watched(self) -> bool:
        """Whether images are decoded one at a time, through `watch`."""
        return self.number > 1

    def watch(self, index: int, decode: Callable[[], Prepared]) -> Prepared:
        """Decode an image, noted in case that kills the process."""
        if index in self.deadly:
            problem = "decoding it ends the process: it crashes the decoder, or memory is short"
            return Prepared(problem)
        self._note(f"image {index}")
        prepared = decode()
        self._note("decoded")
        return prepared

    def _note(self, text: str) -> None:
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
