"""Relevances by the reference, against zennit's, whose implementation has nothing to do with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.attribution import Gradient

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch import explain

from .zennit_composites import PIXELS, ZENNITS, composite

METHODS = ("lrp-zplus", "lrp-epsilon", "epsilon-plus", *ZENNITS)


def pixels(method: str) -> dict[str, Any]:
    ends = torch.tensor(PIXELS[0]), torch.tensor(PIXELS[1])
    return {"pixels": ends} if method == "lrp-epsilon-gamma-box" else {}


def network() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)),
        )
        .eval()
        .double()
    )


X = torch.randn(2, 3, 18, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 4])


@pytest.mark.parametrize("method", METHODS)
def test_the_reference_agrees_with_zennit(method: str) -> None:
    module = network()
    with Gradient(module, composite(method)) as attributor:
        _, expected = attributor(X.clone(), functional.one_hot(TARGETS, 5).double())
    _, found = explain(module, X, TARGETS, method, **pixels(method))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_norm_belongs_to_the_layer_before_it(method: str) -> None:
    """What it is folded into has the same relevances."""
    torch.manual_seed(0)
    conv, norm, head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6 * 256, 4)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.bias.normal_()
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    folded = torch.nn.utils.fuse_conv_bn_eval(conv.eval().double(), norm.eval().double())
    rest = (nn.ReLU(inplace=True), nn.Flatten(), head)
    nets = [nn.Sequential(*start, *rest).eval().double() for start in ([conv, norm], [folded])]
    (_, whole), (_, expected) = (
        explain(net, X, torch.tensor([0, 3]), method, **pixels(method)) for net in nets
    )
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)


class Gated(nn.Module):
    """Squeeze-and-excitation, attention between patches, a residual sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = nn.Conv2d(3, 8, 3, 3), nn.Conv2d(8, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid()
        tokens = x.flatten(2).transpose(1, 2)
        attended, _ = self.attention(tokens, tokens, tokens)
        attended += tokens
        return self.head(attended.mean(1))


def test_relevance_is_conserved_where_no_bias_takes_part() -> None:
    torch.manual_seed(0)
    module = Gated().eval().double()
    _, found = explain(module, X, TARGETS - 1, "lrp-zplus")
    assert found.min() >= 0
    torch.testing.assert_close(
        found.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-2
    )


def test_a_larger_epsilon_takes_more() -> None:
    totals = [
        explain(network(), X, TARGETS, "lrp-zplus", epsilon=epsilon)[1].sum()
        for epsilon in (1e-5, 1)
    ]
    assert totals[1] < 0.9 * totals[0]


def test_an_operation_without_a_rule_is_named() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumprod(x.flatten(1), 1)[:, :4]

    with pytest.raises(NoRuleError, match="cumprod"):
        explain(Sorted().eval(), X, TARGETS - 1, "lrp-zplus")
