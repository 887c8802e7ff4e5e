"""timm's networks, by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxplain.contract.explain import CROP, SQUASH, Preprocessing
from onnxplain.errors import SourceError
from onnxplain.export.sources.labels import imagenet_labels
from onnxplain.networks import not_of_timm
from onnxplain.suggest import nearest

if TYPE_CHECKING:
    import torch


def timm_module(
    name: str, pretrained: bool, size: tuple[int, int] | None = None
) -> torch.nn.Module:
    """A network by timm's own name, `pvt_v2_b1` or `resnet50.a1_in1k`.

    Args:
        size: height and width, for networks built for one size (mostly vision transformers).

    Raises:
        SourceError: timm has no such network, or cannot get its weights.
    """
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise SourceError(not_of_timm(name, timm.list_models()))
    trained = timm.list_pretrained([architecture, f"{architecture}.*"])
    tags = [other.partition(".")[2] for other in trained]
    if tag and tag not in tags:
        raise SourceError(f"timm has no weights {tag!r} of {architecture}; {nearest(tag, tags)}")
    if pretrained and not tags:
        raise SourceError(
            f"timm has no trained weights of {architecture}; pass weights=PATH with a "
            "checkpoint, or weights='none' for an untrained network"
        )
    options: dict[str, Any] = {"pretrained": pretrained}
    if size is not None and size != tuple(timm.get_pretrained_cfg(name).input_size)[1:]:
        options["img_size"] = size
    try:
        try:
            return timm.create_model(name, **options)
        except TypeError:  # a network that takes any size
            options.pop("img_size", None)
            return timm.create_model(name, **options)
    except Exception as error:
        if not pretrained:
            raise SourceError(f"timm cannot make {name}: {error}") from error
        raise SourceError(
            f"cannot get the weights of {name} ({error}); pass weights=PATH with a checkpoint, "
            "or weights='none' for an untrained network"
        ) from error


def timm_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """What a `pretrained_cfg` says about the input: the crop is `crop_pct` of the shorter side.

    Where all of the photograph is squashed, nothing is cropped.
    """
    _, height, width = config["input_size"]
    squashed = config.get("crop_mode") == "squash" and config.get("crop_pct") == 1
    return Preprocessing(
        height=height,
        width=width,
        resize=math.floor(max(height, width) / (config.get("crop_pct") or 0.875)),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bilinear"),
        fit=SQUASH if squashed else CROP,
    )


def timm_labels(module: torch.nn.Module) -> tuple[str, ...]:
    """The class names of a pretrained network, where timm knows the data it was trained on."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if subset is None:
        return ()
    if subset == "imagenet-1k":
        return imagenet_labels()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
