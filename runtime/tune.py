"""Find a network's temperature on the user's own photographs.

The softest gates show the most, until what they show is no longer what the network reads. So the
best temperature is the highest at which an ascent along the pullback still raises the target's
logit; of no classifier, the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.objective import BOX, MASK
from onnxplain.errors import InputError
from onnxplain.printable import Brief
from onnxplain.runtime.ascent import accentuate
from onnxplain.runtime.cosines import cosines
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.inputs.objective import repeated
from onnxplain.runtime.inputs.targets import fixed_targets

TEMPERATURES = np.geomspace(0.1, 3.0, 16)
"""The ones to try: excitation's T (0.3 in the paper), or semantic's factor (1 in the paper)."""

_SHIFT = 2  # pixels
_NOISE = 0.05  # standard deviation, in the network's own space


@dataclass(frozen=True, eq=False, repr=False)
class Tuning(Brief):
    """What was measured at each of the temperatures [T], and the best of them.

    Attributes:
        temperature: the highest at which `raised` reached the share asked for.
        temperatures: the ones tried, rising.
        raised: the share of photograph × class pairs whose logit, or objective, an ascent raised,
            in [0, 1].
        gain: the median rise of that.
        shift_stability: cosine of the pullback and that of the photograph shifted by 2 pixels,
            shifted back; the median over photographs. NaN where a box or a region is given: it
            would stay where it is, and another part of the photograph be explained.
        noise_stability: the same for Gaussian noise of 0.05 in the network's own space.
        sensitivity: 1 − cosine of the pullbacks for two classes of one photograph; the median; NaN
            where there is one target.
        pairs: how many pairs there were.
        scalar: what was raised, "logit" or "objective".
    """

    temperature: float
    temperatures: NDArray[np.float64]
    raised: NDArray[np.float64]
    gain: NDArray[np.float64]
    shift_stability: NDArray[np.float64]
    noise_stability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    pairs: int
    scalar: str = "logit"


def tune(
    explainer: Explainer,
    images: Sequence[ImageLike],
    *,
    classes: int = 6,
    share: float = 0.9,
    temperatures: Sequence[float] | NDArray[np.float64] = TEMPERATURES,
    steps: int = 5,
    progress: Callable[[int], None] | None = None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> Tuning:
    """Try temperatures on a grid of photographs × classes.

    Args:
        explainer: of a graph exported with a live temperature, and preferably with a step too.
        images: as for `Explainer.__call__`.
        classes: per photograph: the predicted one, or what the objective explains by default, and
            others drawn at random (seed 0), as far as there are others.
        share: the part of the pairs whose logit, or objective, the ascent must raise.
        temperatures: the ones to try, rising.
        steps: of each ascent.
        progress: called with 1, 2, … as each temperature is done.
        inputs: what the file's objective takes besides, as for `Explainer.__call__`.

    Raises:
        InputError: the graph's temperature is not live, an image cannot be used, or no
            temperature raises enough of the pairs.
    """
    signature = explainer.backend.signature
    signature.metadata.require_input("tuning")
    if not signature.live_temperature or signature.multi_target:
        raise InputError(
            "tuning needs a graph exported with live_temperature=True, and without "
            "multi_target=True"
        )
    pre = explainer.metadata.preprocessing
    batch, _ = as_batch(images, pre, signature.dtype)
    given = repeated(signature, inputs, len(batch), 1)
    predicted = fixed_targets(signature, explainer(batch, **given).targets, None)
    random = np.random.default_rng(0)
    grid = None if predicted is None else _columns(predicted, signature.classes, classes, random)
    count = 1 if grid is None else grid.shape[1]
    pairs, for_pairs = batch.repeat(count, axis=0), repeated(signature, inputs, len(batch), count)
    height, width = (1, 2) if pre.layout == "NHWC" else (2, 3)
    shifted = np.roll(batch, (_SHIFT, _SHIFT), (height, width))
    declared = signature.metadata.objective.inputs
    placed = any(name in declared and declared[name].kind in (BOX, MASK) for name in given)
    noisy = batch + _NOISE * random.standard_normal(batch.shape).astype(batch.dtype)

    def measure(T: float) -> tuple[float, ...]:
        def explained(images: NDArray[Any], targets: NDArray[np.int64] | None) -> NDArray[Any]:
            found: NDArray[Any] = explainer(images, targets, T, **given).pullback
            return found

        targets = None if grid is None else grid.reshape(-1)
        climbed = accentuate(explainer, pairs, targets, steps, temperature=T, inputs=for_pairs)
        of = explained(batch, predicted)
        shift = sensitivity = np.nan
        if not placed:
            back = np.roll(explained(shifted, predicted), (-_SHIFT, -_SHIFT), (2, 3))
            inside = (..., slice(_SHIFT, -_SHIFT), slice(_SHIFT, -_SHIFT))
            shift = _median_cosine(of[inside], back[inside])
        if grid is not None and count > 1:
            sensitivity = 1 - _median_cosine(of, explained(batch, grid[:, -1]))
        return (
            float((climbed.gain > 0).mean()),
            float(np.median(climbed.gain)),
            shift,
            _median_cosine(of, explained(noisy, predicted)),
            sensitivity,
        )

    measured = []
    for done, T in enumerate(temperatures, 1):
        measured.append(measure(float(T)))
        if progress:
            progress(done)
    columns = np.array(measured).T
    scalar = "logit" if signature.metadata.objective.is_class else "objective"
    good = np.flatnonzero(columns[0] >= share)
    if not len(good):
        raise InputError(
            f"no temperature from {temperatures[0]:g} to {temperatures[-1]:g} raises "
            f"{share:.0%} of the {scalar}s (at best {columns[0].max():.0%}); try other images"
            + (", or fewer classes" if count > 1 else "")
        )
    return Tuning(
        float(temperatures[good[-1]]),
        np.array(temperatures),
        *columns,  # type: ignore[misc]
        pairs=len(pairs),
        scalar=scalar,
    )


def _columns(
    predicted: NDArray[np.int64], classes: int, wanted: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """For each photograph the class that is predicted, and others, [N, columns]."""
    count = min(wanted, max(classes, 1)) - 1
    rows = []
    for own in predicted.tolist():
        others = np.setdiff1d(np.arange(classes), own)
        rows.append([own, *random.choice(others, count, False).tolist()])
    return np.array(rows, np.int64)


def _median_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.median(cosines(a, b)))
