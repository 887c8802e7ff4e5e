"""What a study found, as numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.signal.data import Data
from onnxplain.signal.image_statistics import colour_distance, information_bins
from onnxplain.signal.measurement import Measurement
from onnxplain.signal.order import Order, find_order

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Results:
    """The results for C classifiers. Signals are the classifiers' own unless said otherwise.

    Attributes:
        names: the classifiers'.
        pictures: how many were measured.
        parameters: how many each classifier has.
        original: [C], accuracy on the originals.
        untuned: [C], accuracy on reconstructions before tuning.
        matrix: [C, C], accuracy of i (row) on the signal of j (column).
        information: by signal, five quantiles (5, 25, 50, 75, 95 %) of the normalised mutual
            information with the originals.
        bins: how many the histograms for it have.
        error: by signal, the mean over the pictures of the root mean squared difference.
        colours: by signal, how far the distribution of its pixel values is from the originals'.
        colour_counts: by signal, including the originals, [channels, bins].
        spectrum: by signal, including the originals.
        order: the one that the answers imply.
        skipped: names of pictures that could not be read.
    """

    names: list[str]
    pictures: int
    parameters: list[int]
    original: NDArray[np.float64]
    untuned: NDArray[np.float64]
    matrix: NDArray[np.float64]
    information: dict[str, NDArray[np.float64]]
    bins: int
    error: dict[str, float]
    colours: dict[str, float]
    colour_counts: dict[str, NDArray[np.int64]]
    spectrum: dict[str, NDArray[np.float64]]
    order: Order
    skipped: list[str]

    @property
    def kept(self) -> list[float | None]:
        """[C], accuracy on its own signal ÷ accuracy on the originals; None if that is 0."""
        pairs = zip(np.diag(self.matrix), self.original, strict=True)
        return [float(own / original) if original else None for own, original in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        entries = _plain(dataclasses.asdict(self))
        entries["kept"] = self.kept
        return entries


def results_of(
    names: Sequence[str],
    measured: Mapping[str, Measurement],
    parameters: Mapping[str, int],
    data: Data,
    seed: int,
    skipped: list[str],
) -> Results:
    """The results of the measurements.

    Args:
        measured: by signal: first the originals, then the untuned autoencoder's, then the
            classifiers' own by their names.
    """
    originals, untuned = list(measured)[:2]
    reconstructed = {signal: m for signal, m in measured.items() if signal != originals}
    right = np.stack([measured[name].right for name in names], axis=1)
    first = measured[originals]
    return Results(
        names=list(names),
        pictures=right.shape[2],
        parameters=[parameters[name] for name in names],
        original=first.right.mean(1),
        untuned=measured[untuned].right.mean(1),
        matrix=right.mean(2),
        information={s: np.quantile(m.information, _QUANTILES) for s, m in reconstructed.items()},
        bins=information_bins(data.size**2),
        error={s: float(m.error.mean()) for s, m in reconstructed.items()},
        colours={s: colour_distance(first.colours, m.colours) for s, m in reconstructed.items()},
        colour_counts={s: m.colours for s, m in measured.items()},
        spectrum={s: m.spectrum for s, m in measured.items()},
        order=find_order(right, seed),
        skipped=skipped,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
