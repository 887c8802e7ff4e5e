"""Find a network's temperature on the user's own photographs.

The softest gates show the most, until what they show is no longer what the network reads. So the
best temperature is the highest at which an ascent along the pullback still raises the target's
logit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.runtime.ascent import accentuate
from onnxplain.runtime.cosines import cosines
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import ImageLike, as_batch

TEMPERATURES = np.geomspace(0.1, 3.0, 16)
"""The ones to try: excitation's T (0.3 in the paper), or semantic's factor (1 in the paper)."""

_SHIFT = 2  # pixels
_NOISE = 0.05  # standard deviation, in the network's own space


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was measured at each of the temperatures [T], and the best of them.

    Attributes:
        temperature: the highest at which `raised` reached the share asked for.
        temperatures: the ones tried, rising.
        raised: the share of photograph × class pairs whose logit an ascent raised, in [0, 1].
        gain: the median rise of the logit.
        shift_stability: cosine of the pullback and that of the photograph shifted by 2 pixels,
            shifted back; the median over photographs.
        noise_stability: the same for Gaussian noise of 0.05 in the network's own space.
        sensitivity: 1 − cosine of the pullbacks for two classes of one photograph; the median.
        pairs: how many pairs there were.
    """

    temperature: float
    temperatures: NDArray[np.float64]
    raised: NDArray[np.float64]
    gain: NDArray[np.float64]
    shift_stability: NDArray[np.float64]
    noise_stability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    pairs: int


def tune(
    explainer: Explainer,
    images: Sequence[ImageLike],
    *,
    classes: int = 6,
    share: float = 0.9,
    temperatures: Sequence[float] | NDArray[np.float64] = TEMPERATURES,
    steps: int = 5,
    progress: Callable[[int], None] | None = None,
) -> Tuning:
    """Try temperatures on a grid of photographs × classes.

    Args:
        explainer: of a graph exported with a live temperature, and preferably with a step too.
        images: as for `Explainer.__call__`.
        classes: per photograph: the predicted one, and others drawn at random (seed 0).
        share: the part of the pairs whose logit the ascent must raise.
        temperatures: the ones to try, rising.
        steps: of each ascent.
        progress: called with 1, 2, … as each temperature is done.

    Raises:
        InputError: the graph's temperature is not live, an image cannot be used, or no
            temperature raises enough of the pairs.
    """
    signature = explainer.backend.signature
    signature.metadata.require_image("tuning")
    signature.metadata.objective.require_classifier("tuning")
    if not signature.live_temperature or signature.multi_target:
        raise InputError(
            "tuning needs a graph exported with live_temperature=True, and without "
            "multi_target=True"
        )
    pre = explainer.metadata.preprocessing
    batch, _ = as_batch(images, pre, signature.dtype)
    predicted = explainer(batch).targets
    classes = min(classes, signature.classes)
    random = np.random.default_rng(0)
    grid = np.stack(
        [
            [top, *random.choice(np.delete(np.arange(signature.classes), top), classes - 1, False)]
            for top in predicted
        ]
    )
    pairs = batch.repeat(classes, axis=0)
    height, width = (1, 2) if pre.layout == "NHWC" else (2, 3)
    shifted = np.roll(batch, (_SHIFT, _SHIFT), (height, width))
    noisy = batch + _NOISE * random.standard_normal(batch.shape).astype(batch.dtype)

    def measure(T: float) -> tuple[float, ...]:
        gain = accentuate(explainer, pairs, grid.reshape(-1), steps, temperature=T).gain
        of = explainer(batch, predicted, T).pullback
        back = np.roll(explainer(shifted, predicted, T).pullback, (-_SHIFT, -_SHIFT), (2, 3))
        inside = (..., slice(_SHIFT, -_SHIFT), slice(_SHIFT, -_SHIFT))
        other = explainer(batch, grid[:, -1], T).pullback
        return (
            float((gain > 0).mean()),
            float(np.median(gain)),
            _median_cosine(of[inside], back[inside]),
            _median_cosine(of, explainer(noisy, predicted, T).pullback),
            1 - _median_cosine(of, other),
        )

    measured = []
    for done, T in enumerate(temperatures, 1):
        measured.append(measure(float(T)))
        if progress:
            progress(done)
    columns = np.array(measured).T
    good = np.flatnonzero(columns[0] >= share)
    if not len(good):
        raise InputError(
            f"no temperature from {temperatures[0]:g} to {temperatures[-1]:g} raises "
            f"{share:.0%} of the logits (at best {columns[0].max():.0%}); try other images"
        )
    best = float(temperatures[good[-1]])
    return Tuning(best, np.array(temperatures), *columns, pairs=grid.size)  # type: ignore[misc]


def _median_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.median(cosines(a, b)))
