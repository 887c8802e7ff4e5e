"""What mutants are given to, and how that ends."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import onnxplain
from onnxplain.errors import OnnxplainError

from . import archives, asked, derivatives, entries, pictures
from .mutants import mutant
from .seeds import explain_graphs, networks

EXPLAINED, REFUSED = "explained", "refused"
UNFORESEEN, MEMORY = "refused by a library's words", "refused for want of memory"
OWN = {EXPLAINED, REFUSED, UNFORESEEN, MEMORY}
"""How a mutant may end: in an explanation or in an error of onnxplain's own. Two of these are
counted apart: one that hands on what a library or a rule stumbled over, and one that says that the
memory which the process may have is not enough."""


@dataclass(frozen=True)
class Target:
    """Mutant n, of one of the seeds, is the same wherever and whenever it is made.

    Attributes:
        change: makes a mutant's bytes of a seed.
        attempt: uses a file of them.
    """

    name: str
    seeds: Sequence[Any]
    change: Callable[[Any, random.Random], bytes]
    attempt: Callable[[Path], None]

    def mutant(self, number: int) -> bytes:
        rng = random.Random(f"{self.name} {number}")
        return self.change(rng.choice(self.seeds), rng)

    def judged(self, number: int, folder: Path) -> str:
        """How mutant `number` ends: one of `OWN`, or an error that is not onnxplain's own."""
        path = folder / "mutant.onnx"
        path.write_bytes(self.mutant(number))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.attempt(path)
        except OnnxplainError as error:
            if _for_memory(error):
                return MEMORY
            return UNFORESEEN if "please report it" in str(error) else REFUSED
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return EXPLAINED


def target(name: str, folder: Path) -> Target:
    """One of `NAMES`.

    Args:
        folder: where seeds are made.
    """
    return Target(name, *_PARTS[name](folder))


_Parts = tuple[Sequence[Any], Callable[[Any, random.Random], bytes], Callable[[Path], None]]

_PARTS: dict[str, Callable[[Path], _Parts]] = {
    "export": lambda folder: (networks(), mutant, _exported),
    "explain": lambda folder: (explain_graphs(), mutant, _explained),
    "differentiate": lambda folder: (
        *(derivatives.seeds(), derivatives.mutant, derivatives.attempt),
    ),
    "metadata": lambda folder: (entries.seeds(folder), entries.mutant, entries.attempt),
    "images": lambda folder: (pictures.seeds(), pictures.mutant, pictures.attempt),
    "requests": lambda folder: (asked.seeds(), asked.mutant, asked.attempting(folder)),
    "archives": lambda folder: (archives.seeds(), archives.mutant, archives.attempt),
}
"""A network's file becomes an explanation; an explain graph's does; a network's file gets
derivatives of all kinds; what files say of themselves is shown and used; images are
decoded; requests are answered; tar files and tables are read."""

NAMES = tuple(_PARTS)


def _exported(path: Path) -> None:
    graph = path.with_name("explain.onnx")
    onnxplain.export(path, graph)
    _explained(graph)


def _explained(path: Path) -> None:
    explainer = onnxplain.load(path, "cpu")
    explainer(np.zeros((9, 11, 3), np.uint8)).labels()


def _for_memory(error: BaseException | None) -> bool:
    """Whether memory was asked for that the system did not give."""
    while error is not None:
        said = str(error).lower()
        if isinstance(error, MemoryError) or "alloc" in said or "not enough memory" in said:
            return True
        error = error.__cause__ or error.__context__
    return False
