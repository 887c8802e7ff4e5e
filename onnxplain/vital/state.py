"""The file that an interrupted optimisation resumes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.steps import importance, template
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import opened
from onnxplain.vital.references import Templates

_PICTURE, _FRAMES, _PROBABILITIES = "picture", "frames", "probabilities"
_FINGERPRINT, _PROVIDER = "fingerprint", "provider"


@dataclass(frozen=True, eq=False)
class Moment:
    """Where an optimisation stands.

    Attributes:
        carried: what is carried from step to step, by the step graph's inputs.
        picture: the network's input, float32 [N, C, H, W] in its layout; None before the first step
            of a spectrum.
        frames: earlier pictures, uint8 [N, H, W, 3].
    """

    carried: Mapping[str, NDArray[Any]]
    picture: NDArray[np.float32] | None
    frames: tuple[NDArray[np.uint8], ...] = ()


@dataclass(frozen=True, eq=False)
class Kept:
    """What a state file holds.

    Attributes:
        fingerprint: the same for optimisations that take the same steps.
        provider: what ran it.
        templates: one for each neuron. They are saved so that another machine, which rounds
            differently, can continue.
        moment: where it stands.
    """

    fingerprint: str
    provider: str
    templates: Sequence[Templates]
    moment: Moment

    def save(self, path: Path) -> None:
        """Write the file, completely or not at all.

        Raises:
            InputError: the path cannot be written.
        """
        arrays: dict[str, Any] = {
            **self.moment.carried,
            _PICTURE: self.moment.picture,
            _FRAMES: np.array(self.moment.frames, np.uint8),
            _PROBABILITIES: np.array([own.probability for own in self.templates]),
            _FINGERPRINT: np.array(self.fingerprint),
            _PROVIDER: np.array(self.provider),
            **by_input(self.templates),
        }
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> Kept:
        """Read it back.

        Raises:
            InputError: the file belongs to another optimisation, or is damaged.
        """
        try:
            with opened(path) as regular, np.load(regular) as file:
                kept = {name: file[name] for name in file.files}
        except (OSError, ValueError, BadZipFile, EOFError) as error:
            raise InputError(
                f"'{path}' cannot be read ({error}); delete it to start again"
            ) from error
        if str(kept.pop(_FINGERPRINT, "")) != fingerprint:
            raise InputError(
                f"'{path}' belongs to an optimisation with other settings, references or another "
                "network; delete it (or give another folder) to start this one"
            )
        probabilities = kept.pop(_PROBABILITIES)
        sorted_, importances = (_layers(kept, name) for name in (template, importance))
        templates = [
            Templates(
                tuple(layer[i] for layer in sorted_),
                tuple(layer[i] for layer in importances),
                float(probability),
            )
            for i, probability in enumerate(probabilities)
        ]
        provider = str(kept.pop(_PROVIDER))
        picture, frames = kept.pop(_PICTURE), tuple(kept.pop(_FRAMES))
        return cls(fingerprint, provider, templates, Moment(kept, picture, frames))


def by_input(templates: Sequence[Templates]) -> dict[str, NDArray[Any]]:
    """Templates of N neurons as the step graph's inputs: for each layer [N, C, P] and [N, C]."""
    if not templates:
        return {}
    taken: dict[str, NDArray[Any]] = {}
    for i in range(len(templates[0].sorted)):
        taken[template(i)] = np.stack([own.sorted[i] for own in templates])
    for i in range(len(templates[0].importances)):
        taken[importance(i)] = np.stack([own.importances[i] for own in templates])
    return taken


def _layers(kept: dict[str, NDArray[Any]], name: Callable[[int], str]) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = []
    while name(len(found)) in kept:
        found.append(kept.pop(name(len(found))))
    return found


def files(path: Path) -> list[Path]:
    """All the files that a visualisation may keep while it is unfinished.

    The state, that of a start at another size, and for each of them the table of the search where
    photographs are searched for a channel.
    """
    states = [path, beginning(path)]
    return [*states, *map(search, states)]


def beginning(path: Path) -> Path:
    """The state of a start at another size."""
    return path.with_name(f"{path.name}.start")


def search(path: Path) -> Path:
    """The table of the search that precedes that state."""
    return path.with_name(f"{path.name}.search.json")
