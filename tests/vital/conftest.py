"""EfficientNet-Lite0 with its ImageNet weights, as the searches and metrics run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain.vital.graphs.channels import write_channels
from onnxplain.vital.graphs.subject import Subject, read_subject

EARLY, LATE = "_blocks.3", "_swish"


@pytest.fixture(scope="session")
def searched() -> Subject:
    """With one layer of 40 channels and one of 1280."""
    return read_subject("efficientnet-lite0", layers=[EARLY, LATE])


@pytest.fixture(scope="session")
def channels_graph(searched: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("channels") / "channels.onnx"
    write_channels(searched, path, logits=True)
    return path


@pytest.fixture(scope="session")
def crops(photographs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven crops of photographs, of all shapes, in a folder and one within."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    pictures = list(photographs.values())
    for i in range(11):
        picture = pictures[i % len(pictures)]
        height, width = rng.integers(120, 300, 2)
        top, left = (
            rng.integers(0, picture.shape[0] - height),
            rng.integers(0, picture.shape[1] - width),
        )
        cut = picture[top : top + height, left : left + width]
        Image.fromarray(cut).save(folder / ("more" if i > 6 else "") / f"{i:02}.png")
    return folder
