"""A step of VITAL (Görgün et al., arXiv 2503.22399) in PyTorch, written apart from the exporter.

Hooks on the layers, `torch.sort` for the ranks, autograd down to the picture, `torch.optim.Adam`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.reference.pytorch import baselines, norms
from onnxplain.reference.pytorch.relevance import RelevanceFlow
from onnxplain.reference.pytorch.relevance.sharing import by_magnitude
from onnxplain.reference.pytorch.replace import ReplacedBackward, Replacements


@dataclass(frozen=True)
class Network:
    """A classifier seen layer by layer.

    Attributes:
        module: in evaluation mode, of the dtype of the pictures, its parameters without gradients.
        layers: paths of the submodules whose outputs are matched: [N, C, h, w] or [N, P, C].
        neuron: of the submodule whose channels are visualised; None for classes.
        relevance: "lrp", "restricted" or "guided", of which classes have none.
    """

    module: nn.Module
    layers: tuple[str, ...]
    neuron: str | None = None
    relevance: str = "lrp"

    def quantities(self, images: Tensor, channels: Tensor | None) -> tuple[list[Tensor], ...]:
        """What is matched, and each channel's importance; of each layer, for each image.

        Args:
            images: [N, C, H, W].
            channels: int64 [N] for a neuron, else None.

        Returns:
            Tensors [N, C, P]; tensors [N, C], the channels' greatest relevances from 0 to 1, ones
            for classes.
        """
        with _watched(self.module, self.layers) as seen:
            self.module(images)
        activations = [_channels_first(seen[name]) for name in self.layers]
        if channels is None:
            return activations, [torch.ones_like(a[..., 0]) for a in activations]
        maps = [_channels_first(R) for R in self._relevance(images.detach(), channels)]
        scaled = [_from_0_to_1(R) for R in maps]
        q = [R * a for R, a in zip(scaled, activations, strict=True)]
        return q, [_from_0_to_1(R.amax(-1)) for R in maps]

    def _relevance(self, images: Tensor, channels: Tensor) -> tuple[Tensor, ...]:
        """The relevance of the layers to the neuron, each of the layer's shape."""
        assert self.neuron is not None
        functions = {functional.batch_norm: norms.batch_norm, **baselines.GUIDED.functions}
        guided = self.relevance == "guided"
        flow = ReplacedBackward(Replacements(functions)) if guided else _flow()
        leaf = images.requires_grad_()
        watched = _watched(self.module, (*self.layers, self.neuron))
        with torch.enable_grad(), watched as seen, flow:
            self.module(leaf.clone())
        neuron = seen[self.neuron]
        seed = self._seed(neuron.detach(), channels)
        maps = torch.autograd.grad(neuron, [seen[name] for name in self.layers], seed)
        return tuple(R.relu() for R in maps) if guided else maps

    def _seed(self, layer: Tensor, channels: Tensor) -> Tensor:
        seed = torch.zeros_like(layer)
        for n, channel in enumerate(channels.tolist()):
            here = layer[n].movedim(0, -1) if layer.ndim == 4 else layer[n]  # [..., C]
            into = seed[n].movedim(0, -1) if layer.ndim == 4 else seed[n]
            if self.relevance == "guided":
                into[..., channel] = 1 / here[..., 0].numel()
            elif self.relevance == "lrp":
                into[..., channel] = here[..., channel]
            else:
                one_hot = functional.one_hot(torch.tensor(channel), here.shape[-1]).to(here.dtype)
                cosine = functional.cosine_similarity(here, one_hot, dim=-1)
                place = torch.unravel_index(cosine.argmax(), cosine.shape)
                into[(*place, channel)] = 1
        return seed


def _flow() -> RelevanceFlow:
    """z⁺ with its ε, but sums by |a| / (|a| + |b|), or 0 where both are."""
    flow = RelevanceFlow()
    flow.sharing = replace(flow.sharing, sums=_by_magnitude)
    return flow


def _by_magnitude(terms: Sequence[Tensor], y: Tensor, R: Tensor, _: float) -> list[Tensor]:
    return by_magnitude(terms, y, R, 1e-30)


@contextmanager
def _watched(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What submodules put out, by name, while the context lasts."""
    modules, seen = dict(module.named_modules()), dict[str, Tensor]()

    def hook(name: str):  # type: ignore[no-untyped-def]
        def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
            seen[name] = output
            return output.clone()  # because what comes next may work in place

        return keep

    handles = [modules[name].register_forward_hook(hook(name)) for name in set(names)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _channels_first(layer: Tensor) -> Tensor:
    return layer.transpose(1, 2) if layer.ndim == 3 else layer.flatten(2)


def _from_0_to_1(maps: Tensor) -> Tensor:
    least, greatest = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return (maps - least) / (greatest - least + 1e-6)


def templates(
    network: Network, references: Tensor, channel: int | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Of each layer what its sorted quantity is to be, [C, P], and its channels' importance, [C].

    Both are averages over `references`, [R, C, H, W].
    """
    channels = None if channel is None else torch.full((len(references),), channel)
    with torch.no_grad():
        quantities, importances = network.quantities(references, channels)
    sorted_ = [q.sort(-1, descending=True).values.mean(0) for q in quantities]
    return sorted_, [importance.mean(0) for importance in importances]


@dataclass(frozen=True)
class Objective:
    """What a picture costs.

    Attributes:
        templates, importances: of each layer, [N, C, P] and [N, C].
        weights: of the layers.
        priors: weights of tv_l1, tv_l2 and l2.
    """

    templates: Sequence[Tensor]
    importances: Sequence[Tensor]
    weights: Sequence[float]
    priors: tuple[float, float, float]

    def loss(self, network: Network, images: Tensor, channels: Tensor | None) -> Tensor:
        """Σ_l w_l · mean_c i_c · mean_p (q − t of the same rank)², and the priors; [N]."""
        total = priors(images, self.priors)
        quantities, _ = network.quantities(images, channels)
        for q, template, importance, weight in zip(
            quantities, self.templates, self.importances, self.weights, strict=True
        ):
            order = q.detach().sort(-1, descending=True).indices
            target = torch.empty_like(template).scatter_(-1, order, template)
            total = total + weight * (importance * (q - target).square().mean(-1)).mean(-1)
        return total


def activation(network: Network, images: Tensor, chosen: Tensor) -> Tensor:
    """−1 × the logit of a class, or the mean of a neuron's channel; [N]."""
    with _watched(network.module, [network.neuron] if network.neuron else []) as seen:
        logits = network.module(images)
    if network.neuron is None:
        return -logits[range(len(images)), chosen]
    return -_channels_first(seen[network.neuron])[range(len(images)), chosen].mean(-1)


def priors(images: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """tv_l1 and tv_l2 over four directions, and l2, as DeepInversion has them; [N]."""
    differences = [
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1, :] - images[:, :, 1:, :],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    ]
    tv_l1 = sum(d.flatten(1).abs().mean(-1) for d in differences)
    tv_l2 = sum(d.flatten(1).norm(dim=-1) for d in differences)
    return weights[0] * tv_l1 + weights[1] * tv_l2 + weights[2] * images.flatten(1).norm(dim=-1)


def moved(images: Tensor, shift: tuple[int, int], mirrored: bool) -> Tensor:
    """Rolled by rows down and columns right, and then mirrored."""
    rolled = images.roll(shift, dims=(2, 3))
    return rolled.flip(3) if mirrored else rolled


_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
"""`color_correlation_svd_sqrt` of the Lucid library (Olah et al. 2017)."""


def picture(spectrum: Tensor, width: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The normalised picture [N, 3, H, W] of a spectrum [N, 2, 3, H, W/2 + 1], as Lucid's."""
    height = spectrum.shape[3]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = 1 / np.maximum(frequency, 1 / max(height, width)) * math.sqrt(height * width)
    scaled = torch.complex(*spectrum.unbind(1)) * torch.from_numpy(scale).to(spectrum.dtype)
    pixels = torch.fft.irfft2(scaled, s=(height, width)) / 4
    colours = torch.tensor(_COLOURS, dtype=spectrum.dtype)
    colours = colours / colours.norm(dim=0).max()
    pixels = torch.einsum("nchw,dc->ndhw", pixels, colours).sigmoid()
    per_channel = [torch.tensor(v, dtype=spectrum.dtype).reshape(-1, 1, 1) for v in (mean, std)]
    return (pixels - per_channel[0]) / per_channel[1]
