"""Autoencoders in files: ours, and those published by the paper's authors."""

from __future__ import annotations

import io
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxplain.errors import InputError, SourceError
from onnxplain.files import replacing
from onnxplain.reading import unreadable
from onnxplain.signal.autoencoder import Autoencoder, Design

AUTHORS_MEAN, AUTHORS_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""Those of the authors' input: blue, green, red, from 0 to 255."""

AUTHORS_SIZE = 224

CHANNELS = ("rgb", "bgr")
"""What the network in a file of the authors' may take: as their published script feeds and reads
it, or with the channels of its first and last convolution reversed here, so that ours takes RGB."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write what `torch.save` can, completely or not at all.

    Raises:
        InputError: the path cannot be written.
    """
    encoded = io.BytesIO()
    torch.save(content, encoded)
    with replacing(path) as beside:
        beside.write_bytes(encoded.getbuffer())


def save_autoencoder(autoencoder: Autoencoder, path: Path) -> None:
    """Write the weights, and the design that they belong to.

    Raises:
        InputError: the path cannot be written.
    """
    state = {name: tensor.cpu() for name, tensor in autoencoder.state_dict().items()}
    save({"design": autoencoder.design.to_dict(), "model_state": state}, path)


def read(path: Path) -> dict[str, Any]:
    """A dictionary that `torch.save` wrote. Its tensors go to the CPU; no code is run.

    Names may be bytes, as Python 2 wrote them.

    Raises:
        SourceError: no such file, or it holds something else.
    """
    if (problem := unreadable(path)) is not None:
        raise SourceError(problem)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever the bytes lead it to
        raise SourceError(f"{path} is not a file of PyTorch weights: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return _named_by_text(content)


def _named_by_text(content: dict[Any, Any]) -> dict[str, Any]:
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: (
            _named_by_text(value) if isinstance(value, dict) else value
        )
        for key, value in content.items()
    }


def load_autoencoder(path: Path, channels: str = "rgb") -> Autoencoder:
    """An autoencoder from a file of `onnxplain signal train`, or from one of the authors'.

    The state of the authors' SegNet may be wrapped in `model_state`, and its names
    (`conv11.weight` … `conv_final.bias`) may have any prefix: `module.`, `encoder.`, …. Anything
    else in the file, such as a classifier after the autoencoder, is ignored.

    Args:
        channels: what the authors' network takes, one of `CHANNELS`. If red and blue are swapped
            in a reconstruction, it is the other one.

    Raises:
        SourceError: no such file, or its tensors are not those of an autoencoder.
        InputError: no such order of channels, or one other than rgb for a file of a training's.
    """
    if channels not in CHANNELS:
        raise InputError(f"channels are one of {', '.join(CHANNELS)}, not {channels!r}")
    content = read(path)
    state = content.get("model_state", content)
    ours = "design" in content
    if ours and channels != "rgb":
        raise InputError(
            f"channels are those of the authors' weights, and {path} is no file of theirs"
        )
    try:
        design = Design.from_dict(content["design"]) if ours else _authors_design()
        autoencoder = Autoencoder(design)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"the design in {path} cannot be read ({error!r})") from error
    try:
        autoencoder.load_state_dict(
            state if ours else from_authors(state, {*autoencoder.state_dict()}, channels == "bgr")
        )
    except (RuntimeError, AttributeError, TypeError) as error:
        raise SourceError(
            f"{path} does not hold the weights of an autoencoder {design.name}: {error}"
        ) from error
    return autoencoder.eval()


def from_authors(
    state: dict[str, Tensor], known: Set[str], reverse: bool = False
) -> dict[str, Tensor]:
    """The authors' state under our names; only tensors with `known` names are taken.

    Args:
        reverse: make what was trained on BGR take RGB.
    """
    renamed = {}
    for name, tensor in state.items():
        own = ".".join(name.split(".")[-2:])  # the layer and its tensor, without any prefix
        layer = own.partition(".")[0]
        decodes = layer.endswith("d") or layer == "conv_final"
        ours = f"{'decoder' if decodes else 'encoder'}.{own}"
        if ours not in known:
            continue
        if (
            reverse and layer == "conv_final"
        ):  # whose weight and bias begin with the picture's channels
            tensor = tensor.flip(0)
        elif reverse and own == "conv11.weight":
            tensor = tensor.flip(1)
        renamed[ours] = tensor
    return renamed


def _authors_design() -> Design:
    mean, std = (tuple(v / 255 for v in reversed(bgr)) for bgr in (AUTHORS_MEAN, AUTHORS_STD))
    return Design("segnet", AUTHORS_SIZE, mean, std)


def start_from(path: Path, size: int, count: int, channels: str = "rgb") -> Autoencoder:
    """`load_autoencoder`, for pictures of a different size than it was trained on.

    Args:
        count: how many channels the pictures have.
        channels: as for `load_autoencoder`.

    Raises:
        SourceError: as `load_autoencoder`.
        InputError: a size that it cannot take, or another number of channels.
    """
    loaded = load_autoencoder(path, channels)
    if loaded.design.channels != count:
        raise InputError(
            f"{path} is for {loaded.design.channels} channels, and the data has {count}"
        )
    Design.of(loaded.design.name, size, count)
    design = Design(loaded.design.name, size, loaded.design.mean, loaded.design.std)
    autoencoder = Autoencoder(design)
    autoencoder.load_state_dict(loaded.state_dict())
    return autoencoder
