"""The authors' definitions, once more in PyTorch, float64, for networks of a few layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

SIZE, CHANNEL = 32, 5
FIRST, SECOND, NEURON = "0", "3", "5"
ACTIVATED = ("1", "4")
"""The two layers after their ReLUs: no gate clamps what comes back to them."""


def beginning_of_a_resnet() -> nn.Sequential:
    """Convolution, ReLU, max-pool of 3 × 3 with stride 2, two convolutions; random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def matched(kind: str) -> tuple[str, str]:
    """The two layers whose relevance of that kind is measured."""
    return ACTIVATED if kind == "guided" else (FIRST, SECOND)


class Layers:
    """The network in float64, layer by layer, up to the neuron; the network is not changed."""

    def __init__(self, network: nn.Sequential, images: NDArray[Any]) -> None:
        parts: list[Any] = [part.double() for part in copy.deepcopy(network)]
        self.conv1, _, self.pool, self.conv2, _, self.conv3 = parts[:6]
        self.first = self.conv1(torch.from_numpy(images).double()).detach()
        self.pooled_from = self.first.relu()
        self.pooled = self.pool(self.pooled_from)
        self.second = self.conv2(self.pooled).detach()
        self.activated = self.second.relu()
        self.neuron = self.conv3(self.activated).detach()

    def outputs(self, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the layers that are `matched`."""
        if kind == "guided":
            return self.pooled_from, self.activated
        return self.first, self.second


def z_plus(conv: nn.Conv2d, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """R_i = Σ_j x_i w⁺_ij / (Σ_i x_i w⁺_ij + 1e-5) R_j."""
    return share(lambda a: functional.conv2d(a, conv.weight.clamp(min=0), padding=1), x, relevance)


def below(conv: nn.Conv2d, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The gradient of a convolution's input."""
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(conv(x), x, g)
    return found


def share(
    linear: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, relevance: torch.Tensor
) -> torch.Tensor:
    x = x.detach().requires_grad_()
    z = linear(x)
    (pulled,) = torch.autograd.grad(z, x, (relevance / (z + 1e-5)).detach())
    return (x * pulled).detach()


def maps(
    layers: Layers, kind: str, pool_rule: str = "window", last_relu: bool = True
) -> list[torch.Tensor]:
    """The relevance of both layers, [N, C, H, W].

    Args:
        last_relu: whether what guided backpropagation finds of a layer is rectified once more.
    """
    alone = torch.zeros_like(layers.neuron)
    if kind == "guided":
        alone[:, CHANNEL] = 1 / alone[0, 0].numel()
        deep = below(layers.conv3, layers.activated, alone)
        pooled = below(layers.conv2, layers.pooled, (deep * (layers.second > 0)).relu())
        x = layers.pooled_from.detach().requires_grad_()
        (first,) = torch.autograd.grad(layers.pool(x), x, pooled)
        return [g.relu() if last_relu else g for g in (first, deep)]
    if kind == "lrp":
        alone[:, CHANNEL] = layers.neuron[:, CHANNEL]
    else:
        cosine = layers.neuron[:, CHANNEL] / layers.neuron.norm(dim=1)
        for n, place in enumerate(cosine.flatten(1).argmax(1).tolist()):
            alone[n, CHANNEL, place // alone.shape[3], place % alone.shape[3]] = 1
    second = z_plus(layers.conv3, layers.activated, alone)
    pooled = z_plus(layers.conv2, layers.pooled, second)
    average = nn.AvgPool2d(2) if pool_rule == "vital" else nn.AvgPool2d(3, 2, 1, False, False)
    return [share(average, layers.pooled_from, pooled), second]


def from_0_to_1(x: torch.Tensor, axes: tuple[int, ...], epsilon: float = 1e-6) -> torch.Tensor:
    above = x - x.amin(axes, keepdim=True)
    return above / (above.amax(axes, keepdim=True) + epsilon)


def best_patches(network: nn.Sequential, images: NDArray[Any], side: int) -> torch.Tensor:
    """The greatest mean of each channel of the neuron's layer over an image's patches, [N, C].

    The patches are four fifths of their side apart, and each is resized to the image's size.
    """
    x = torch.from_numpy(images).double()
    cut = functional.unfold(x, side, stride=int(0.8 * side)).transpose(1, 2)
    patches = cut.reshape(-1, x.shape[1], side, side)
    whole = functional.interpolate(patches, x.shape[2:], mode="bilinear", align_corners=False)
    means = copy.deepcopy(network).double()[: int(NEURON) + 1](whole).mean((2, 3))
    return means.unflatten(0, (len(images), -1)).amax(1).detach()


def gradient_of_means(
    network: nn.Sequential,
    images: NDArray[Any],
    templates: Sequence[NDArray[Any]],
    priors: Sequence[float],
) -> NDArray[Any]:
    """Of one loss of all images: the mean activations' distance from templates of the same rank.

    Args:
        templates: of the first and the second layer, [1, C, P], descending.
        priors: weights of both total variations, over all images, and of the mean norm.
    """
    x = torch.from_numpy(images).double().requires_grad_()
    parts: Any = copy.deepcopy(network).double()
    first = parts[0](x)
    loss = priors[2] * x.flatten(1).norm(dim=1).mean()
    for layer, template in zip((first, parts[1:4](first)), templates, strict=True):
        mean = layer.mean(0).flatten(1)
        rank = mean.argsort(1, descending=True).argsort(1)
        wanted = torch.from_numpy(template[0]).double().gather(1, rank)
        loss = loss + (mean - wanted).square().mean()
    for d in (
        x[..., :-1] - x[..., 1:],
        x[..., :-1, :] - x[..., 1:, :],
        x[..., 1:, :-1] - x[..., :-1, 1:],
        x[..., :-1, :-1] - x[..., 1:, 1:],
    ):
        loss = loss + priors[0] * d.abs().mean() + priors[1] * d.norm()
    found: NDArray[Any] = torch.autograd.grad(loss, x)[0].numpy()
    return found


class TwoGates(nn.Module):
    """A ReLU that is a module, and a functional one, as DenseNet's last is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(self.relu(self.first(x))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


SOFTNESS = 0.3


class SoftGate(torch.autograd.Function):
    """ReLU, whose gradient is g · σ(z / T)."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z)
        return z.relu()

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor) -> torch.Tensor:
        (z,) = ctx.saved_tensors
        return g[0] * (z / SOFTNESS).sigmoid()


def softened(
    network: TwoGates,
    images: NDArray[Any],
    last: Callable[[torch.Tensor], torch.Tensor],
    of: Callable[[torch.Tensor], torch.Tensor],
) -> NDArray[Any]:
    """The gradient of `of` the logits, the first ReLU softened and the last by `last`."""
    double = copy.deepcopy(network).double()
    x = torch.from_numpy(images).double().requires_grad_()
    gate: Any = SoftGate.apply
    y = double.head(last(double.second(gate(double.first(x)))).mean((2, 3)))
    found: NDArray[Any] = torch.autograd.grad(of(y).sum(), x)[0].numpy()
    return found


class Attention(nn.Module):
    """One head over pixels, linear but for its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(3, 12), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor, T: float | None = None) -> torch.Tensor:
        """With a temperature, what its gradient is the pullback of: constant weights by T."""
        q, k, v = self.qkv(4 * x.flatten(2).transpose(1, 2)).split(4, -1)
        scores = q @ k.transpose(1, 2)
        w = scores.softmax(-1) if T is None else (scores / T).softmax(-1).detach()
        logits: torch.Tensor = self.head((w @ v).mean(1))
        return logits


def ascended(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    pixels: torch.Tensor,
    steps: int,
    alpha: float,
    eps: float | None,
) -> torch.Tensor:
    """Pixels in [-1, 1] after x ← clip(x₀ + P_ε(x + α g / ‖g‖₂ − x₀))."""
    start = pixels
    for _ in range(steps):
        g = gradient(pixels)
        moved = pixels + alpha * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - start
        if eps is not None:
            length = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = moved * (eps / length).clamp(max=1)
        pixels = (start + moved).clamp(-1, 1)
    return pixels
