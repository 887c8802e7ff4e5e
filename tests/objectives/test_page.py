"""The recipes of docs/objectives.md run, in their order."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

from .networks import images, vector
from .test_detectors import SIZE, Yolo8
from .test_maps import network as maps
from .test_sequences import network as recogniser

PAGE = Path(__file__).parent.parent.parent / "docs" / "objectives.md"


class Features(torch.nn.Module):
    """One map of them, as torchvision's detectors take it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 8), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"0": self.layers(x)}


def ssd() -> SSD:
    torch.manual_seed(0)
    boxes, head = DefaultBoxGenerator([[1]]), SSDHead([4], [4], 3)
    return SSD(Features(), boxes, (SIZE, SIZE), 3, head=head)


def test_the_recipes_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    photographs = images(2, SIZE).numpy()
    given: dict[str, Any] = {
        "detector": Yolo8().eval(),
        "ssd": ssd().eval(),
        "segmenter": maps(),
        "encoder": vector(5),
        "regression": vector(1),
        "recogniser": recogniser(),
        "image": torch.zeros(1, 3, SIZE, SIZE),
        "photograph": photographs[:1],
        "second": photographs[1:],
    }
    with contextlib.chdir(tmp_path):
        for block in blocks:
            exec(block, given)
    assert (tmp_path / "why.png").stat().st_size > 1000
    np.testing.assert_allclose(given["older"].pullback, -given["younger"].pullback)
    assert given["here"].outputs["explained_box"].tolist() == [[8, 8, 40, 56]]
    assert np.isfinite(float(capsys.readouterr().out.splitlines()[-1].strip("[]")))
