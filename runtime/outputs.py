"""Outputs of a graph, image by image: each has them along an axis of its own, or along none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import PULLBACK
from onnxplain.contract.objective import Explained
from onnxplain.contract.pixels import PULLBACK_SCALE

Outputs = Mapping[str, NDArray[Any]]


def in_floats(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arrays or tensors with a quantised pullback multiplied by its scale, which is left out."""
    if PULLBACK_SCALE not in outputs:
        return outputs
    scale = outputs[PULLBACK_SCALE][..., None, None, None]
    others = {name: array for name, array in outputs.items() if name != PULLBACK_SCALE}
    return {**others, PULLBACK: outputs[PULLBACK] * scale}


def of_images(
    explained: Explained, outputs: Outputs, images: slice | list[int] | NDArray[np.intp]
) -> Outputs:
    """Those of some images; what has no known batch axis stays whole."""
    chosen = {}
    for name, array in outputs.items():
        axis = explained.batch_axis(name)
        chosen[name] = array if axis is None else array[(slice(None),) * axis + (images,)]
    return chosen


def joined(explained: Explained, runs: Sequence[Outputs]) -> Outputs:
    """Those of several runs as of one; what has no known batch axis, only where all agree on it."""
    together = {}
    for name, first in runs[0].items():
        axis, all_ = explained.batch_axis(name), [run[name] for run in runs]
        if axis is not None:
            together[name] = np.concatenate(all_, axis)
        elif all(np.array_equal(first, other) for other in all_):
            together[name] = first
    return together
