"""The class names that trained networks come with."""

from __future__ import annotations


def imagenet_labels() -> tuple[str, ...]:
    """ImageNet's 1000, as torchvision has them."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])
