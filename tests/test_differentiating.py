"""The page of derivatives runs in the order in which it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from onnxplain.cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "differentiate.md"


def test_the_recipes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 9
    for language, block in blocks:
        if language == "python":
            exec(block, names)
            continue
        done = CliRunner().invoke(app, shlex.split(block)[1:])
        assert done.exit_code == 0, done.output
    x, v = (torch.from_numpy(names[name]) for name in ("positions", "direction"))
    gradient = torch.func.grad(lambda x: names["potential"](x).sum())  # type: ignore[operator]
    product = torch.func.jvp(gradient, (x,), (v,))[1]
    assert np.allclose(names["product"], product.detach().numpy(), atol=1e-3)
