"""An ONNX file as objective: a function of the network's outputs, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import onnxplain
from onnxplain.errors import InputError, SourceError

from .networks import SIZE, close, exported, gradient, images
from .test_maps import network

X = images()
CONTRAST = """
    <ir_version: 10, opset_import: ["": 18]>
    contrast (float[N, 4, 8, 8] output, float[N, 4] weight, float[N] factor) => (float[N] y)
        <float[1] factor = {2}, int64[2] axes = {2, 3}> {
        square = Mul (output, output)
        mean = ReduceMean <keepdims = 0> (square, axes)
        weighted = Mul (mean, weight)
        one = Constant <value = int64[1] {1}> ()
        total = ReduceSum <keepdims = 0> (weighted, one)
        y = Mul (total, factor)
    }
"""


def written(text: str, path: Path) -> str:
    onnx.save(onnx.parser.parse_model(text), path)
    return str(path)


def test_a_file_is_an_objective(tmp_path: Path) -> None:
    path = written(CONTRAST, tmp_path / "contrast.onnx")
    explainer = exported(network(), objective=path)
    inputs = explainer.metadata.objective.inputs
    assert {name: (one.shape, one.default) for name, one in inputs.items()} == {
        "weight": ((4,), None),
        "factor": ((), 2),
    }
    assert explainer.metadata.objective.axes == {"output": ["batch", "", "", ""]}
    weight = np.array([1.0, -1, 0.5, 2])
    score, pullback = gradient(
        network(), X, lambda y: 2 * ((y * y).mean((2, 3)) * torch.from_numpy(weight)).sum(1)
    )
    found = explainer(X.numpy(), weight=weight)
    close(found.objective, score)
    close(found.pullback, pullback)
    close(explainer(X.numpy(), weight=weight, factor=-1).pullback, -pullback / 2)
    assert explainer.metadata.objective.name == "contrast.onnx"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("output, float[N, 4] w", "out, float[N, 4] w"), "no output of the network is called"),
        (("float[N, 4, 8, 8] output", "float[N, 5] output"), "the network's is"),
        (("float[N, 4] weight", "float[N, C] weight"), "no input of its own either"),
        (("float[N] y)", "float[N] y, float[N, 4] mean)"), "2 outputs"),
        (("float[N] y)", "float[N, 4] weighted)"), r"gives FLOAT\[.*one FLOAT per sample"),
    ],
)
def test_a_file_that_does_not_fit(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    assert change[0] in CONTRAST
    text = CONTRAST.replace(*change)
    if "out, " in change[1]:
        text = text.replace("(output, output)", "(out, out)")
    path = written(text, tmp_path / "contrast.onnx")
    with pytest.raises(SourceError, match=message):
        onnxplain.export(
            network(), tmp_path / "e.onnx", example=torch.zeros(1, 3, SIZE, SIZE), objective=path
        )


@pytest.mark.parametrize("name", ["class.onnx", "segment.onnx"])
def test_a_file_is_no_objective_of_ours_by_its_name(name: str, tmp_path: Path) -> None:
    path = written(CONTRAST, tmp_path / name)
    explainer = exported(network(), objective=path)
    assert not explainer.metadata.objective.is_class
    assert "weight" in explainer.metadata.objective.inputs
    with pytest.raises(InputError, match="give the ONNX file"):
        onnxplain.verify(explainer.path, network(), provider="cpu")
    found = onnxplain.verify(explainer.path, network(), provider="cpu", objective=path)
    assert found.passed


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        exported(network(), objective=str(tmp_path / "none.onnx"))
