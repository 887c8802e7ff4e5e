"""Which image ends the process that decodes it: a crash raises nothing that could be caught."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from onnxplain.batch.reading import Prepared


class Attempt:
    """A shard that is begun. A file says so to whoever tries it after this process has died.

    From the second attempt on, each image is noted there before it is decoded, and once it is. One
    that was noted, and then nothing but the next attempt, ended its process; from then on it is a
    row with an error.

    Attributes:
        number: 1 for the first in a run.
        deadly: the images, by their index in the shard, that ended an earlier attempt.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note("attempt")
        notes = path.read_text("ascii")
        self.number = notes.count("attempt\n")
        self.deadly = {int(index) for index in re.findall(r"image (\d+)\nattempt\n", notes)}

    @property
    def watched(self) -> bool:
        """Whether images are decoded one at a time, by `watch`."""
        return self.number > 1

    def watch(self, index: int, decode: Callable[[], Prepared]) -> Prepared:
        """Decode an image, noted as the one that did it if that ends the process."""
        if index in self.deadly:
            problem = "decoding it ends the process: it crashes the decoder, or memory is too short"
            return Prepared(None, None, problem)
        self._note(f"image {index}")
        prepared = decode()
        self._note("decoded")
        return prepared

    def _note(self, text: str) -> None:
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
