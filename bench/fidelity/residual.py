"""A small ResNet, and relevance through it as VITAL's code has it, in PyTorch and float64."""

from __future__ import annotations

import copy
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from onnxplain.bench.fidelity.definitions import share

LAYERS, NEURON, CHANNEL = ("stem", "blocks.0"), "blocks.2", 3


class Block(nn.Module):
    """Two convolutions with BatchNorms, beside the identity or a convolution with its own."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.project: nn.Conv2d | None = None
        if before != after:
            self.project, self.bn3 = nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.bn1(self.conv1(x)).relu()
        return found

    def ends(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The branch's and the shortcut's."""
        shortcut = x if self.project is None else self.bn3(self.project(x))
        return self.bn2(self.conv2(self.middle(x))), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch, shortcut = self.ends(x)
        return (branch + shortcut).relu()


class SmallResNet(nn.Module):
    """A stem, blocks with projections and with identities, and γ of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.blocks = nn.Sequential(Block(6, 8), Block(8, 8), Block(8, 8), Block(8, 10))
        self.head = nn.Linear(10, 4)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                nn.init.uniform_(part.running_mean, -0.2, 0.2)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
                nn.init.normal_(part.weight, 0.3, 0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.blocks(self.bn(self.stem(x)).relu()).mean((2, 3)))
        return logits


class Relevance:
    """By the convolutions' own weights, their positive part, BatchNorms being passed.

    Args:
        skip: flows_skip, flows_skip_simple, latest or simple.
        top: the share of the elements of R that each convolution takes.
    """

    def __init__(self, network: SmallResNet, skip: str = "flows_skip", top: float = 1.0) -> None:
        self.network = copy.deepcopy(network).double().eval()
        self.skip, self.top = skip, top

    def maps(self, images: NDArray[Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The relevance of the stem and of the first block to a channel of the third, and what the
        two put out; [N, C, H, W] each."""
        network, blocks = self.network, list(self.network.blocks)
        stem = network.stem(torch.from_numpy(images).double()).detach()
        reads = [network.bn(stem).relu().detach()]
        for block in blocks[:3]:
            reads.append(block(reads[-1]).detach())
        R = torch.zeros_like(reads[3])
        R[:, CHANNEL] = reads[3][:, CHANNEL]
        found = []
        for block, x in zip(blocks[2::-1], reads[2::-1], strict=True):
            found.append(R)
            R = self._through(block, x, R)
        return [R, found[2]], [stem, reads[1]]

    def _through(self, block: Any, x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
        branch, shortcut = (end.detach().abs() for end in block.ends(x))
        ratio = branch / (branch + shortcut)
        if self.skip in ("flows_skip_simple", "simple"):
            ratio = torch.full_like(ratio, 0.5)
        if self.skip in ("latest", "simple") and block.project is None:
            ratio = torch.ones_like(ratio)
        inner = self._conv(block.conv2, block.middle(x).detach(), ratio * R)
        past = (1 - ratio) * R
        return self._conv(block.conv1, x, inner) + (
            past if block.project is None else self._conv(block.project, x, past)
        )

    def _conv(self, conv: nn.Conv2d, x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
        flat = R.flatten(1)
        best = flat.topk(int(self.top * flat.shape[1]))
        R = torch.zeros_like(flat).scatter(1, best.indices, best.values).reshape(R.shape)
        padding = conv.padding
        weight = conv.weight.detach().clamp(min=0)
        return share(lambda a: nn.functional.conv2d(a, weight, padding=padding), x, R)
