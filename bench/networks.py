"""The networks that are measured, and the photographs that they are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from onnxplain.export.sources.source import torch_network

TRAINED = ("efficientnet-lite0",)
"""Those whose trained weights come with a package; the others' are random."""

PHOTOGRAPHS = ("chelsea", "coffee", "rocket")


def photographs() -> list[Any]:
    """The photographs, as PIL images."""
    import skimage.data
    from PIL import Image

    return [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]


def network(name: str, pictures: Sequence[Any]) -> nn.Module:
    """A network for images of 224 × 224, with its trained weights or random ones that behave.

    With random weights, its batch normalisations get the statistics of the photographs, without
    which activations grow or vanish with depth as they do in no network in use; and what an
    initialisation switches off (the head of a ViT is 0, a ConvNeXt's blocks count 1e-6) is
    switched on.
    """
    if name in TRAINED:
        return torch_network(name, "DEFAULT", (224, 224)).module.eval()
    module = torch_network(name, "none", (224, 224)).module.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key.endswith("layer_scale"):
                parameter.fill_(0.1)
            elif parameter.ndim > 1 and not parameter.any():
                nn.init.xavier_uniform_(parameter)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return module
    crops = [picture.resize((224, 224)) for picture in pictures]
    pixels = np.stack([np.asarray(crop, np.float32) for crop in crops]).transpose(0, 3, 1, 2)
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        module(torch.from_numpy((pixels / 255 - 0.45) / 0.225))
    for norm in norms:
        norm.eval()
    return module
