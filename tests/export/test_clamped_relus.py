"""A ReLU stays one whatever clamps its result: no optimiser makes one clip of the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnxscript import OpBuilder
from torch import nn
from torch.nn import functional

import onnxplain
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.reference.answers import compare

from .test_patterns import Spelling, graph_of


class Clamped(nn.Module):
    """ReLUs with a cap, a floor, a second ReLU, a range around theirs, a bound that cuts nothing;
    and GeM pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 6, 3) for c in (3, 6, 6, 6, 6, 6))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.convs[0](x)).clamp(max=0.5)
        x = functional.relu(functional.relu(self.convs[1](x)))
        x = functional.relu(self.convs[2](x)).clamp(0.05, 20.0)
        x = functional.relu(self.convs[3](x).clamp(-0.2, 0.3))
        x = functional.hardtanh(self.convs[4](x), 0.0, 65504.0)
        x = functional.relu(self.convs[5](x)).clamp(min=1e-6).pow(3)
        return self.head(x.mean((2, 3)).pow(1 / 3))


@pytest.mark.parametrize("method", ["excitation", "semantic", "guided"])
def test_a_clamped_relu_is_explained_as_pytorch_has_it(method: str, tmp_path: Path):
    torch.manual_seed(0)
    module, path = Clamped().eval(), tmp_path / "e.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, 3, 14, 14), method=method)
    images = np.random.default_rng(0).standard_normal((2, 3, 14, 14)).astype(np.float32)
    parity = compare(onnxplain.load(path), module, images, np.array([0, 3]))
    assert all(each.relative_l2 < 1e-5 for each in parity.values())


@pytest.mark.parametrize(
    ("spell", "kept"),
    [
        (lambda op, x: op.Clip(op.Relu(x), None, 20.0), ["Relu", "Clip"]),
        (lambda op, x: op.Clip(op.Relu(x), 1e-6), ["Relu", "Clip"]),
        (lambda op, x: op.Max(op.Max(x, 0.0), 1e-6), ["Relu", "Max"]),
        (lambda op, x: op.Min(op.Relu(x), 20.0), ["Relu", "Min"]),
        (
            lambda op, x: op.Min(op.Max(x, 0.0), 20.0),
            ["Clip"],
        ),  # clamp(0, 20), by PyTorch's exporter
        (lambda op, x: op.Relu(op.Clip(x, -1.0, 2.0)), ["Clip", "Relu"]),
        (lambda op, x: op.Relu(op.Relu(x)), ["Relu", "Relu"]),
        (lambda op, x: op.Clip(op.Relu(x), None, 6.0), ["Clip"]),  # ReLU6
        (lambda op, x: op.Clip(op.Clip(x, 0.0, 1.0), 2.0, 3.0), ["Clip", "Clip"]),
        (lambda op, x: op.Relu(op.Clip(x, -3.0, -1.0)), ["Clip", "Relu"]),
    ],
)
def test_a_relu_and_a_clip_stay_two_and_keep_their_value(spell: Spelling, kept: list[str]):
    def network(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Neg(spell(op, x))

    model = graph_of(network, (3, 2, 2))
    x = np.linspace(-4, 25, 12, dtype=np.float32).reshape(1, 3, 2, 2)
    before = run(model, x)
    canonical = canonicalise(model, classifier=False).model
    assert [node.op_type for node in canonical.graph] == [*kept, "Neg"]
    np.testing.assert_array_equal(run(canonical, x), before)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    written = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"image": x})
    return y
