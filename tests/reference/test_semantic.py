"""The reference's semantic pullback: every spelling in torch, against its closed form."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm import LayerNormExp2d, RmsNorm, RmsNorm2d, SimpleNorm
from torch import Tensor, nn
from torch.nn import functional
from torch.special import ndtr
from transformers.activations import ACT2FN

from onnxplain.reference.pytorch import explain

from .test_methods import Sandwich, draw

T = 0.7
Z, G = draw(2, 4, 3, 5, scale=4), draw(1, 60)
GRID = G.reshape(1, 4, 3, 5)
Function = Callable[[Tensor], Tensor]


def pull(layer: Function, z: Tensor = Z, T: float = T, method: str = "semantic") -> Tensor:
    """What the cotangent G of layer(z) becomes at z."""
    return explain(Sandwich(layer, G), z, torch.zeros(len(z), dtype=torch.int64), method, T)[1]


def relu_gate(z: Tensor) -> Tensor:
    return ndtr(z / (0.6 * T))


def silu_gate(z: Tensor) -> Tensor:
    return torch.sigmoid(z / (1.6 * T))


def hard_swish_gate(z: Tensor) -> Tensor:
    return (z / (6 * 1.6 * T) + 0.5).clamp(0, 1)


def mish_gate(z: Tensor) -> Tensor:
    return functional.softplus(z / (1.6 * T)).tanh()


SLOPE = torch.tensor([0.1, -0.3, 0.5, 0.0], dtype=torch.float64)

GATES: dict[str, tuple[Function, Function]] = {
    "F.gelu": (functional.gelu, lambda z: ndtr(z / T)),
    "F.gelu by tanh": (lambda x: functional.gelu(x, approximate="tanh"), lambda z: ndtr(z / T)),
    "transformers' gelu_new": (ACT2FN["gelu_new"], lambda z: ndtr(z / T)),
    "transformers' gelu_fast": (ACT2FN["gelu_fast"], lambda z: ndtr(z / T)),
    "transformers' quick_gelu": (ACT2FN["quick_gelu"], lambda z: silu_gate(1.702 * z)),
    "F.silu": (functional.silu, silu_gate),
    "nn.SiLU in place": (nn.SiLU(inplace=True), silu_gate),
    "x * sigmoid(x)": (lambda x: x * torch.sigmoid(x), silu_gate),
    "x.sigmoid() * x": (lambda x: x.sigmoid() * x, silu_gate),
    "x.mul_(x.sigmoid())": (lambda x: x.mul_(x.sigmoid()), silu_gate),
    "timm's swish": (timm.layers.activations.Swish(), silu_gate),
    "x * sigmoid(1.702 x)": (
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda z: silu_gate(1.702 * z),
    ),
    "F.hardswish": (functional.hardswish, hard_swish_gate),
    "nn.Hardswish in place": (nn.Hardswish(inplace=True), hard_swish_gate),
    "x * F.hardsigmoid(x)": (lambda x: x * functional.hardsigmoid(x), hard_swish_gate),
    "F.mish": (functional.mish, mish_gate),
    "nn.Mish in place": (nn.Mish(inplace=True), mish_gate),
    "F.leaky_relu": (
        lambda x: functional.leaky_relu(x, 0.2),
        lambda z: 0.2 + 0.8 * relu_gate(z),
    ),
    "nn.LeakyReLU in place": (
        nn.LeakyReLU(inplace=True),
        lambda z: 0.01 + 0.99 * relu_gate(z),
    ),
    "F.prelu": (
        lambda x: functional.prelu(x, SLOPE),
        lambda z: SLOPE[:, None, None] + (1 - SLOPE[:, None, None]) * relu_gate(z),
    ),
    "F.elu": (lambda x: functional.elu(x, alpha=0.5), relu_gate),
    "nn.ELU in place": (nn.ELU(inplace=True), relu_gate),
    "F.celu": (functional.celu, relu_gate),
    "torch.celu_": (torch.celu_, relu_gate),
    "F.selu": (functional.selu, lambda z: 1.0507009873554805 * relu_gate(z)),
    "nn.SELU in place": (nn.SELU(inplace=True), lambda z: 1.0507009873554805 * relu_gate(z)),
    "F.softplus": (functional.softplus, relu_gate),
    "F.softplus with β": (lambda x: functional.softplus(x, beta=3.0), lambda z: relu_gate(3 * z)),
}


@pytest.mark.parametrize("spelling", GATES)
def test_every_spelling_of_an_activation_has_its_softened_gate(spelling: str) -> None:
    activation, gate = GATES[spelling]
    torch.testing.assert_close(pull(activation), GRID * gate(Z))


@pytest.mark.parametrize("spelling", GATES)
def test_the_forward_pass_is_exact(spelling: str) -> None:
    activation, _ = GATES[spelling]
    logits, _ = explain(Sandwich(activation, G), Z, torch.zeros(2, dtype=torch.int64), "semantic")
    torch.testing.assert_close(logits, activation(Z.clone()).flatten(1) @ G.T, rtol=0, atol=0)


def test_a_sigmoid_of_something_else_is_no_activation() -> None:
    """Squeeze-and-excitation: what it multiplies gets the gate as it stands."""
    squeeze = lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))  # noqa: E731
    expected = GRID * torch.sigmoid(Z.mean((2, 3), keepdim=True))
    torch.testing.assert_close(pull(squeeze), expected)


def test_a_tensor_changed_since_its_sigmoid_is_no_activation() -> None:
    def shifted(x: Tensor) -> Tensor:
        x = x * 1.0
        gate = torch.sigmoid(x)
        x += 1
        return x * gate

    torch.testing.assert_close(pull(shifted), GRID * torch.sigmoid(Z))


HELD: dict[str, tuple[Function, Function]] = {
    "torch.sigmoid": (torch.sigmoid, torch.sigmoid),
    "Tensor.sigmoid_": (lambda x: x.clone().sigmoid_(), torch.sigmoid),
    "nn.Hardsigmoid": (nn.Hardsigmoid(), functional.hardsigmoid),
    "F.hardsigmoid in place": (
        lambda x: functional.hardsigmoid(x.clone(), inplace=True),
        functional.hardsigmoid,
    ),
    "F.softmax": (lambda x: functional.softmax(x, dim=-1), lambda x: torch.softmax(x, -1)),
    "nn.Softmax": (nn.Softmax(dim=1), lambda x: torch.softmax(x, 1)),
    "Tensor.softmax": (lambda x: x.softmax(-1), lambda x: torch.softmax(x, -1)),
}


@pytest.mark.parametrize("spelling", HELD)
def test_nothing_flows_into_a_gate_or_weights(spelling: str) -> None:
    weigh, value = HELD[spelling]
    both = lambda x: weigh(x + 1) * x  # noqa: E731
    torch.testing.assert_close(pull(both), GRID * value(Z + 1))


def test_a_gated_linear_unit_is_a_gate() -> None:
    wide = torch.cat([GRID, GRID], 1)
    pullback = explain(
        Sandwich(lambda x: functional.glu(x, dim=1), G),
        torch.cat([Z, Z + 1], 1),
        torch.zeros(2, dtype=torch.int64),
        "semantic",
    )[1]
    expected = wide * torch.cat([torch.sigmoid(Z + 1), torch.zeros_like(Z)], 1)
    torch.testing.assert_close(pullback, expected)


# ----- attention -----


def attended(weights: Tensor) -> Tensor:
    """The cotangent of the values: weightsᵀ · g."""
    return weights.transpose(-1, -2) @ GRID


def spelled_out(x: Tensor) -> Tensor:
    return torch.softmax(x @ x.mT / 5**0.5, -1) @ x


ATTENTION: dict[str, Function] = {
    "spelled out": spelled_out,
    "F.scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("spelling", ATTENTION)
def test_attention_flows_through_the_values_alone(spelling: str) -> None:
    weights = torch.softmax(Z @ Z.mT / 5**0.5, -1)
    torch.testing.assert_close(pull(ATTENTION[spelling]), attended(weights))


def test_a_mask_computed_from_the_image_gets_nothing() -> None:
    mask = lambda x: functional.scaled_dot_product_attention(x, x, x, x @ x.mT)  # noqa: E731
    weights = torch.softmax(Z @ Z.mT / 5**0.5 + Z @ Z.mT, -1)
    torch.testing.assert_close(pull(mask), attended(weights))


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_flows_through_the_values_alone(need_weights: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(5, 1, batch_first=True).double().eval()
    tokens = lambda x: x.flatten(1, 2)  # noqa: E731
    layer = lambda x: module(tokens(x), tokens(x), tokens(x), need_weights=need_weights)[0]  # noqa: E731
    q, k, v = module.in_proj_weight.detach().chunk(3)
    out = module.out_proj.weight.detach()
    weights = torch.softmax((tokens(Z) @ q.T) @ (tokens(Z) @ k.T).mT / 5**0.5, -1)
    expected = weights.mT @ tokens(GRID) @ out @ v
    torch.testing.assert_close(pull(layer), expected.reshape(Z.shape))


# ----- normalisations -----


def sigma(x: Tensor, *axes: int, eps: float = 1e-5, correction: int = 0) -> Tensor:
    return (x.var(axes, correction=correction, keepdim=True) + eps).sqrt()


def rms(x: Tensor, *axes: int, eps: float = 1e-6) -> Tensor:
    return (x.square().mean(axes, keepdim=True) + eps).sqrt()


def awake(module: nn.Module) -> nn.Module:
    """Random weights and biases in float64."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    return module.eval()


OVER_5, OVER_4 = awake(nn.LayerNorm(5)), awake(torchvision.models.convnext.LayerNorm2d(4))
GROUPS, INSTANCE = awake(nn.GroupNorm(2, 4)), awake(nn.InstanceNorm2d(4, affine=True))
RMS, RMS_2D = awake(nn.RMSNorm(5, eps=1e-6)), awake(RmsNorm2d(4))
TIMM_RMS, SIMPLE = awake(RmsNorm(5)), awake(SimpleNorm(5))
EXP_2D, RESPONSE = awake(LayerNormExp2d(4)), awake(GlobalResponseNorm(4, channels_last=False))


def column(module: nn.Module) -> Tensor:
    return module.weight.detach().reshape(4, 1, 1)


def response(x: Tensor) -> Tensor:
    norm = x.norm(dim=(2, 3), keepdim=True)
    return norm / (norm.mean(1, keepdim=True) + 1e-6)


NORMS: dict[str, tuple[Function, Function]] = {
    "nn.LayerNorm": (OVER_5, lambda x: OVER_5.weight.detach() / sigma(x, 3)),
    "F.layer_norm over two axes": (
        lambda x: functional.layer_norm(x, (3, 5)),
        lambda x: 1 / sigma(x, 2, 3),
    ),
    "torchvision's LayerNorm2d": (OVER_4, lambda x: column(OVER_4) / sigma(x, 1, eps=1e-5)),
    "timm's LayerNormExp2d, not contiguous": (
        lambda x: EXP_2D(x.transpose(2, 3)).transpose(2, 3),
        lambda x: column(EXP_2D) / sigma(x, 1, eps=1e-6),
    ),
    "nn.GroupNorm": (
        GROUPS,
        lambda x: (
            column(GROUPS) / sigma(x.reshape(2, 2, 30), 2).repeat(1, 1, 2).reshape(2, 4, 1, 1)
        ),
    ),
    "nn.InstanceNorm2d": (INSTANCE, lambda x: column(INSTANCE) / sigma(x, 2, 3)),
    "nn.RMSNorm": (RMS, lambda x: RMS.weight.detach() / rms(x, 3)),
    "timm's RmsNorm": (TIMM_RMS, lambda x: TIMM_RMS.weight.detach() / rms(x, 3)),
    "timm's RmsNorm2d, spelled out": (RMS_2D, lambda x: column(RMS_2D) / rms(x, 1)),
    "timm's SimpleNorm, spelled out": (
        SIMPLE,
        lambda x: SIMPLE.weight.detach() / sigma(x, 3, eps=1e-6, correction=1),
    ),
    "timm's GlobalResponseNorm": (RESPONSE, lambda x: 1 + column(RESPONSE) * response(x)),
    "F.normalize": (
        lambda x: functional.normalize(x, dim=1),
        lambda x: 1 / x.norm(dim=1, keepdim=True),
    ),
    "F.local_response_norm": (
        lambda x: functional.local_response_norm(x, 2, alpha=0.5, beta=0.75, k=2.0),
        lambda x: local_response(x),
    ),
}


def local_response(x: Tensor) -> Tensor:
    """torch's window of 2 is a channel and the one before."""
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return (2 + 0.5 * (x.square() + before.square()) / 2) ** -0.75


@pytest.mark.parametrize("spelling", NORMS)
def test_the_statistics_of_a_norm_are_held_constant(spelling: str) -> None:
    norm, factor = NORMS[spelling]
    torch.testing.assert_close(pull(norm), GRID * factor(Z))


def test_a_mean_outside_of_a_norm_keeps_its_gradient() -> None:
    mean = lambda x: x.mean((2, 3), keepdim=True).expand_as(x)  # noqa: E731
    torch.testing.assert_close(pull(mean), pull(mean, method="gradient"))


# ----- pools -----


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(2), lambda x: functional.max_pool2d(x, 2), lambda x: torch.max_pool2d(x, [2, 2])],
)
def test_a_max_pool_shares_out_by_its_softmax_held_constant(pool: Function) -> None:
    x, g = draw(1, 3, 4, 6), draw(1, 18)
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2)
    weights = torch.softmax(windows.flatten(-2) / (0.3 * T), -1) * g.reshape(1, 3, 2, 3, 1)
    expected = weights.unflatten(-1, (2, 2)).transpose(3, 4).reshape(x.shape)
    found = explain(Sandwich(pool, g), x, torch.tensor([0]), "semantic", T)[1]
    torch.testing.assert_close(found, expected)


# ----- networks -----


def test_a_cold_semantic_pullback_of_a_relu_network_is_its_gradient() -> None:
    torch.manual_seed(0)
    network = torchvision.models.alexnet(num_classes=10).double().eval()
    images = draw(1, 3, 64, 64)
    _, cold = explain(network, images, torch.tensor([3]), "semantic", 1e-9)
    _, gradient = explain(network, images, torch.tensor([3]), "gradient")
    torch.testing.assert_close(cold, gradient)


@pytest.mark.parametrize("name", ["swin_t", "mobilenet_v3_small", "maxvit_t"])
def test_the_network_and_torch_are_left_as_they_were(name: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name).eval()
    images = torch.randn(1, 3, 224, 224)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        expected = network(images)
    logits, _ = explain(network, images, torch.tensor([-1]), "semantic")
    torch.testing.assert_close(logits, expected)
    hooks = torch.nn.modules.module
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_torch_is_left_as_it_was_when_the_network_fails() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pull(fail)
    assert not torch.nn.modules.module._global_forward_hooks
    torch.testing.assert_close(functional.gelu(Z), Z * ndtr(Z))
