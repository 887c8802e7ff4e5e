"""Measuring a signal: what every classifier makes of it, and how it differs from the originals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import LOGITS
from onnxplain.contract.signals import RECONSTRUCTION
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import opened
from onnxplain.signal import image_statistics
from onnxplain.signal.compiled import Graph
from onnxplain.signal.pictures import Pictures


@dataclass(frozen=True)
class Measurement:
    """The measurement of one signal: N pictures, seen by C classifiers.

    Attributes:
        right: bool [C, N], whether the classifier named the picture's class.
        information: [N], normalised mutual information with the original.
        error: [N], root mean squared difference from the original, pixels in [0, 1].
        colours: [channels, bins], counts of pixel values.
        spectrum: [H // 2 + 1], mean power of grey values by cycles across the picture.
        unreadable: indices of the pictures that could not be read; they are not among the N.
    """

    right: NDArray[np.bool_]
    information: NDArray[np.float64]
    error: NDArray[np.float64]
    colours: NDArray[np.int64]
    spectrum: NDArray[np.float64]
    unreadable: NDArray[np.int64]

    def write(self, path: Path) -> None:
        """Raises InputError if it cannot be written."""
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    @classmethod
    def read(cls, path: Path) -> Measurement:
        """Raises InputError for a file that `write` did not write."""
        try:
            with opened(path) as regular, np.load(regular) as stored:
                return cls(**{f.name: stored[f.name] for f in dataclasses.fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f"'{path}' cannot be read ({error}); delete it to measure again"
            ) from error


def measure(
    autoencoder: Graph | None,
    classifiers: Sequence[Graph],
    pictures: Pictures,
    batch: int,
    progress: Callable[[int, int], None],
) -> Measurement:
    """Run every picture through an autoencoder, and its output through every classifier.

    The classifiers get values beyond [0, 1] too, as when they tuned the autoencoder; the other
    statistics clip them.

    Args:
        autoencoder: the one whose signal is measured; None for the originals.
        progress: called with the pictures done, and how many there are.

    Raises:
        InputError: no picture can be read, or the graphs take others.
        BackendError: the runtime failed.
    """
    rights, parts, done = [], [], 0
    unreadable: list[int] = []
    colours: Any = 0
    spectrum: Any = 0.0
    for pixels, labels, missed in pictures.batches(batch):
        unreadable += missed
        if not len(pixels):
            continue
        seen = autoencoder.run(pixels)[RECONSTRUCTION] if autoencoder else pixels
        answers = [graph.run(seen)[LOGITS].argmax(1) == labels for graph in classifiers]
        rights.append(np.stack(answers))
        difference = (seen.astype(np.float64).clip(0, 1) - pixels) ** 2
        information = image_statistics.normalised_information(pixels, seen)
        parts.append(np.stack([information, np.sqrt(difference.mean((1, 2, 3)))]))
        colours = colours + image_statistics.colour_counts(seen)
        spectrum = spectrum + image_statistics.spectra(seen)
        done += len(pixels)
        progress(done, len(pictures))
    if not done:
        raise InputError("none of the pictures to measure on can be read")
    information, error = np.concatenate(parts, 1)
    right = np.concatenate(rights, 1)
    missing = np.array(unreadable, np.int64)
    return Measurement(right, information, error, colours, spectrum / done, missing)
