"""docs/adapters.md runs as it stands."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .small import X, small_network

PAGE = Path(__file__).parents[2] / "docs/adapters.md"


def test_the_blocks_of_the_page_run_one_after_another(tmp_path: Path) -> None:
    pytest.importorskip("quantus")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    given = {"network": small_network(), "images": X, "targets": np.array([1, 1])}
    given["photograph"] = Image.new("RGB", (20, 24), "teal")
    with contextlib.chdir(tmp_path):
        for block in blocks:
            exec(block, given)
    for name in ("attributions", "smooth", "pullback"):
        assert given[name].shape == X.shape
        assert given[name].abs().max() > 0
    assert [answer["score"] > 0 for answer in given["answers"]] == [True] * 3
    assert "pullback" in given["answers"][1]
    assert given["maps"].shape == (2, 16, 16)
    assert np.isfinite(given["scores"]).all()
