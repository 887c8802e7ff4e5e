"""Does an explanation lie where the class is? Where that is known, by Quantus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.runtime import load

LOCALISATION: Mapping[str, str] = {
    "relevance-mass": "RelevanceMassAccuracy",
    "pointing-game": "PointingGame",
}
"""As the table calls them → the class in `quantus`."""


def localised(
    graph: Path, paths: Sequence[Path], classes: Sequence[int], masks: NDArray[np.bool_]
) -> dict[str, list[float]]:
    """The scores of each image by each measure, of the pullback's magnitudes summed over channels.

    Args:
        masks: where the class is, [N,H,W].
    """
    import quantus

    explanation = load(graph, "cpu")([*map(str, paths)], [*classes])
    strength = np.abs(explanation.pullback).sum(1, keepdims=True)
    found = {}
    for name, kind in LOCALISATION.items():
        metric: Any = getattr(quantus, kind)(disable_warnings=True)
        found[name] = [
            float(metric.evaluate_instance(model=None, x=a, y=0, a=a, s=mask[None]))
            for a, mask in zip(strength, masks, strict=True)
        ]
    return found
