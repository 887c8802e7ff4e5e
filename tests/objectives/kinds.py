"""A small network of every kind, explained, for tests of what is done with explain graphs."""

from __future__ import annotations

import numpy as np

from onnxplain.runtime import Explainer

from .networks import exported, seeded, vector
from .test_detectors import SIZE, Yolo8
from .test_maps import network

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (80, 128, 3), dtype=np.uint8)
BOX, IN_INPUT = (
    [40, 10, 90, 60],
    np.array([40, 10, 90, 60]) * np.tile([116 / 128, 73 / 80], 2) - [26, 4, 26, 4],
)
"""A box of the photograph; and where that is once it is resized, and cropped to 64 pixels."""

QUERY = [1.0, -2, 0.5, 3, 0]


def of_every_kind() -> dict[str, Explainer]:
    """By what it is."""
    return {
        "map": exported(network()),
        "detector": exported(seeded(Yolo8), SIZE),
        "vector": exported(vector(5), objective="embedding"),
        "number": exported(vector(1)),
    }
