"""Classifiers of pixels in [0, 1]: the user's own, and three small ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError, SourceError, UntrustedError
from onnxplain.export.sources.from_programs import load_archive
from onnxplain.export.sources.source import torch_network
from onnxplain.export.sources.tracing import logits_of, root_cause
from onnxplain.signal import weights
from onnxplain.signal.autoencoder import IMAGENET_MEAN, IMAGENET_STD
from onnxplain.signal.data import Data
from onnxplain.signal.sampling import BatchSampler, loader

_BATCH, _RATE, _DECAY = 64, 2e-3, 1e-4


class OnPixels(nn.Module):
    """A classifier with its normalisation: float [N, C, H, W] in [0, 1] → logits [N, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return logits_of(self.network((pixels - self.mean) / self.std))


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(width, out, stride)
        self.second = nn.Sequential(
            nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        )
        self.across = nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.across(x))


def _convolution(width: int, out: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


def _plain(channels: int, size: int, classes: int) -> nn.Module:
    """Like VGG: convolutions and max-pools."""
    return nn.Sequential(
        _convolution(channels, 16),
        nn.MaxPool2d(2),
        _convolution(16, 32),
        nn.MaxPool2d(2),
        _convolution(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (size // 8) ** 2, classes),
    )


def _residual(channels: int, size: int, classes: int) -> nn.Module:
    """Like ResNet: shortcuts, strides, and a mean at the end."""
    return nn.Sequential(
        _convolution(channels, 16, 2),
        _Residual(16, 32, 2),
        _Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def _dense(channels: int, size: int, classes: int) -> nn.Module:
    """A perceptron with two layers, which knows nothing of neighbouring pixels."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * size * size, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


SMALL: dict[str, Callable[[int, int, int], nn.Module]] = {
    "plain": _plain,
    "residual": _residual,
    "dense": _dense,
}
"""Small classifiers by name: (channels, size, classes) → network."""


def open_classifier(
    name: str, data: Data, weights_name: str = "DEFAULT", device: torch.device | None = None
) -> nn.Module:
    """A frozen classifier for pixels, float [N, C, size, size] in [0, 1] → [N, classes].

    Args:
        name: a network by name (torchvision's, `timm/…`); a TorchScript or `torch.export` file with
            an open batch, whose pixels are normalised with ImageNet's mean and std as for
            torchvision's networks; or a file that `train_small` wrote.
        data: what it will classify; its classes are the classifier's, in the same order.
        weights_name: for a network by name: DEFAULT, none or a checkpoint.

    Raises:
        SourceError: no such classifier, or its weights cannot be had.
        InputError: it takes other pictures, or has another number of classes.
    """
    path = Path(name)
    if path.suffix in (".pt", ".pth") or path.is_file():
        module = _from_file(path)
    else:
        network = torch_network(name, weights_name, (data.size, data.size))
        pre = network.preprocessing
        module = OnPixels(network.module, pre.mean, pre.std)
    return frozen(check(module, name, data)).to(device or torch.device("cpu"))


def frozen(module: nn.Module) -> nn.Module:
    """In evaluation mode, so that BatchNorm keeps its statistics, and without gradients."""
    return module.eval().requires_grad_(False)


def check(module: nn.Module, name: str, data: Data) -> nn.Module:
    """The classifier, if it fits the data.

    Raises:
        InputError: it takes other pictures, or has another number of classes.
    """
    blank = torch.zeros(2, data.channels, data.size, data.size)
    try:
        with torch.no_grad():
            logits = module.cpu().eval()(blank)
    except Exception as error:  # networks check their input in many ways
        raise InputError(
            f"the classifier {name} does not take pictures of {data.channels} × {data.size} × "
            f"{data.size}: {root_cause(error)}"
        ) from error
    if logits.ndim != 2 or logits.shape[1] != len(data.classes):
        raise InputError(
            f"the classifier {name} puts out {list(logits.shape)[1:]}, and the data has "
            f"{len(data.classes)} classes: give the classifier that was trained on these classes"
        )
    return module


def _from_file(path: Path) -> nn.Module:
    if not path.is_file():
        raise SourceError(f"no such classifier: {path}")
    try:
        return OnPixels(_module(load_archive(path)), IMAGENET_MEAN, IMAGENET_STD)
    except UntrustedError:
        raise
    except SourceError as error:
        content = weights.read(path)
        if "classifier" not in content:
            raise error
        return _small(content)


def _module(archive: Any) -> Any:
    if not isinstance(archive, torch.export.ExportedProgram):
        return archive
    module = archive.module()
    del module.train, module.eval  # both refuse: a program keeps the mode that it was traced in
    return module


def _small(content: dict[str, Any]) -> nn.Module:
    channels, size, classes = content["shape"]
    module = _on_grey(SMALL[content["classifier"]](channels, size, classes), channels)
    module.load_state_dict(content["model_state"])
    return module


def _on_grey(network: nn.Module, channels: int) -> OnPixels:
    return OnPixels(network, (0.5,) * channels, (0.25,) * channels)


def train_small(
    name: str,
    data: Data,
    path: Path,
    epochs: int,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Train one of the small classifiers and write it.

    Args:
        name: a key of `SMALL`.
        path: the file to write, which `open_classifier` reads.
        progress: called after each step with the steps done, how many there are, and the loss.

    Raises:
        InputError: no such classifier, or the path cannot be written.
    """
    if name not in SMALL:
        raise InputError(f"no small classifier {name!r}; known: {', '.join(SMALL)}")
    shape = (data.channels, data.size, len(data.classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _on_grey(SMALL[name](*shape), data.channels)
    optimizer = torch.optim.AdamW(module.parameters(), _RATE, weight_decay=_DECAY)
    steps = epochs * BatchSampler.steps(len(data.train), _BATCH, 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    sampler = BatchSampler(len(data.train), _BATCH, seed, 0, 1, 0, steps)
    module.train()
    for done, batch in enumerate(loader(data.train, sampler, 0), 1):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(batch.pixels), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if progress:
            progress(done, steps, loss.item())
    content = {"classifier": name, "shape": shape, "model_state": module.state_dict()}
    weights.save(content, path)
