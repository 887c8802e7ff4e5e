"""Images of any size stay on the GPU: sizes alone are the processor's, and none is copied."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.runtime.fake_cuda.ask import Claims, claims

from ..export.test_any_size import Adaptive, Attending, Odd
from ..objectives.networks import images
from ..objectives.test_detectors import SIZE as DETECTED
from ..objectives.test_detectors import network as detector

CASES: list[tuple[Callable[[], nn.Module], dict[str, Any]]] = [
    (Odd, {"method": "excitation", "multi_target": True}),
    (Odd, {"method": "lrp-zplus"}),
    (Adaptive, {"method": "gradient"}),
    (Attending, {"method": "semantic"}),
    (lambda: detector("yolov8"), {"picture": "overlay"}),
]


@pytest.mark.xdist_group("claims")
def test_no_tensor_is_copied(environment: dict[str, str], tmp_path: Path) -> None:
    graphs = []
    for i, (make, options) in enumerate(CASES):
        path = tmp_path / f"{i}.onnx"
        example = images(2, DETECTED) if "picture" in options else torch.zeros(1, 3, 24, 24)
        given = {"example": example, "size": "any", "check": False}
        onnxplain.export(make().eval(), path, **given, **options)
        graphs.append((path, "float32"))
    said = CliRunner().invoke(app, ["info", str(graphs[0][0]), "--provider", "cuda"]).output
    said = " ".join(said.replace("│", " ").split())
    assert re.search(r"\d+ of \d+ nodes stay on the GPU; the others compute sizes on the", said)
    assert "none is copied; CUDA graphs can be recorded" in said
    for case, claim in zip(CASES, claims(graphs, environment), strict=True):
        assert isinstance(claim, Claims), claim
        assert claim.whole, (case, claim)
        assert claim.on_processor.total(), "sizes are computed somewhere"
