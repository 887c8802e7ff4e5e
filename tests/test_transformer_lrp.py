"""AttnLRP and CP-LRP: what the authors' package gives, and what the two are made of."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import onnxplain
from onnxplain.reference.parity import Parity

from .small_transformers import IMAGES, SIZE, TARGETS, made


class Gated(nn.Module):
    """Squeeze-and-excitation, group and RMS norms, SwiGLU, tanh, a product of two, a quotient."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 1)
        self.group, self.rms = nn.GroupNorm(2, 8), nn.RMSNorm(8, eps=1e-5)
        self.gate, self.up, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.group(self.stem(x)))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = self.rms(x.flatten(2).mT)
        x = functional.silu(self.gate(x)) * self.up(x)
        x = x / (1 + x.square().sum(-1, keepdim=True))
        return self.head((x * functional.softplus(x)).mean(1))


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return made()


@pytest.fixture(scope="module")
def gated() -> nn.Module:
    torch.manual_seed(0)
    return Gated().eval()


@pytest.fixture
def lxt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The authors' patches. Their package imports models that later versions of transformers have
    moved: without it, the patches alone."""
    found = importlib.util.find_spec("lxt")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps lxt")
    package = ModuleType("lxt.efficient")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "efficient")]
    monkeypatch.setitem(sys.modules, "lxt.efficient", package)
    return importlib.import_module("lxt.efficient.patches")


def by_the_authors(
    module: nn.Module, method: str, lxt: Any, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """Gradient times input, in float64, of the module with their patches."""

    def patch(owner: Any, name: str, forward: Any) -> None:
        monkeypatch.setattr(owner, f"original_{name}", getattr(owner, name), raising=False)
        monkeypatch.setattr(owner, name, forward)

    patch(nn.GELU, "forward", lxt.non_linear_forward)
    patch(nn.LayerNorm, "forward", lxt.layer_norm_forward)
    if method == "cp-lrp":
        patch(nn.MultiheadAttention, "forward", lxt.cp_multi_head_attention_forward)
    else:
        attend = functional.scaled_dot_product_attention
        wrapped = lxt.wrap_attention_forward(lambda _, q, k, v: attend(q, k, v))
        monkeypatch.setattr(
            functional, "scaled_dot_product_attention", lambda q, k, v, *_: wrapped(None, q, k, v)
        )
    x = torch.tensor(IMAGES).double().requires_grad_()
    logits = module.double()(x).gather(1, torch.tensor(TARGETS)[:, None])
    (g,) = torch.autograd.grad(logits.sum(), x)
    module.float()
    return (x * g).detach().numpy()


@pytest.mark.parametrize("method", ["attn-lrp", "cp-lrp"])
def test_a_transformer_has_the_relevances_of_the_authors_package(
    method: str,
    transformer: nn.Module,
    lxt: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    onnxplain.export(transformer, tmp_path / "x.onnx", size=SIZE, method=method)
    found = onnxplain.load(tmp_path / "x.onnx", "cpu")(IMAGES, TARGETS).pullback
    expected = by_the_authors(transformer, method, lxt, monkeypatch)
    assert Parity.of(found, expected).relative_l2 <= 1e-5


@pytest.mark.parametrize("method", ["attn-lrp", "cp-lrp"])
def test_the_reference_knows_the_rules(
    method: str, transformer: nn.Module, gated: nn.Module, tmp_path: Path
) -> None:
    for module, size in ((transformer, SIZE), (gated, (12, 12))):
        path = tmp_path / "x.onnx"
        onnxplain.export(module, path, size=size, method=method)
        found = onnxplain.verify(path, module, provider="cpu", tolerance=1e-4)
        assert found.against == "against PyTorch in float64"
        assert found.passed, found
