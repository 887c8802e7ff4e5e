"""VITAL's step on every kind of network, against the PyTorch reference in float64.

Run by hand at full size: `pytest -m sweep -rP tests/vital/test_networks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer

from onnxplain.reference.float64 import evaluate_in_float64

from .reference import (
    PARITY,
    Case,
    Traced,
    gradient,
    losses,
    parity,
    relative,
    traced,
    traced_module,
)

_BLOCKS = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, 48, 1), CNBlockConfig(48, None, 1)]
SMALL: dict[str, tuple[Callable[[], torch.nn.Module], tuple[str, ...]]] = {
    "resnet": (
        partial(ResNet, BasicBlock, [1, 1, 1, 1], num_classes=10),
        ("conv1", "layer1", "layer2", "layer3", "layer4"),
    ),
    "densenet": (
        partial(DenseNet, 8, (2, 2, 2), 16, num_classes=10),
        ("features.conv0", *(f"features.denseblock{i}" for i in (1, 2, 3))),
    ),
    "convnext": (
        partial(ConvNeXt, _BLOCKS, layer_scale=0.5, num_classes=10),
        ("features.0", "features.1", "features.3", "features.5"),
    ),
    "vit": (
        partial(VisionTransformer, 64, 16, 3, 2, 32, 64, num_classes=10),
        ("conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(3))),
    ),
}
"""torchvision's architectures, thin and shallow."""

PICTURES = 5
FULL = ("resnet50", "densenet121", "convnext_tiny", "vit_b_16", "efficientnet-lite0")


LONG = (("convnext", None), ("densenet", 2))
"""A class and a channel are alike for an architecture: of these, one is enough each time."""


@pytest.fixture(scope="module")
def small(request: pytest.FixtureRequest) -> Traced:
    build, layers = SMALL[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
    return traced_module(with_statistics(module), 64, layers)


def with_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """BatchNorms and layer scales as a trained network may have them: of both signs, unequal."""
    random = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2, generator=random)
            part.running_var.uniform_(0.5, 1.5, generator=random)
            torch.nn.init.normal_(part.weight, 0.7, 0.5, generator=random)
            torch.nn.init.normal_(part.bias, 0, 0.2, generator=random)
    return module.eval()


@pytest.mark.parametrize(
    ("small", "neuron"),
    [
        pytest.param(name, neuron, marks=pytest.mark.sweep if (name, neuron) in LONG else ())
        for name in SMALL
        for neuron in (None, 2)
    ],
    indirect=["small"],
)
def test_a_step_of_each_architecture_has_the_reference_s_loss_and_gradient(
    small: Traced, neuron: int | None, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    case = Case(small, list(photographs.values()), tmp_path, neuron)
    step = case.open()
    case.let_layers_weigh_the_same()
    assert max(parity(case, step, case.noise)) <= PARITY


@pytest.fixture(scope="module", params=FULL)
def full(request: pytest.FixtureRequest) -> Traced:
    return traced(request.param, 224)


@pytest.mark.sweep
@pytest.mark.parametrize("neuron", [None, 3])
def test_a_step_of_each_network_has_the_reference_s_loss_and_gradient(
    full: Traced,
    neuron: int | None,
    photographs: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    """On five pictures of noise, in float32; those that are off there, in float64.

    ResNet-50 has ten million ReLUs: in about half of all pictures some preactivation is within
    float32's rounding of 0, and each such kink turns the gradient by about 1e-3 (PyTorch's own in
    float32 likewise). The same graph in float64 has none, but where the rounding of a folded
    BatchNorm does it; then the reference's own gradient jumps at that picture.
    """
    case = Case(full, list(photographs.values()), tmp_path, neuron)
    templates = [t[0] for t in case.templates]
    worst = max(map(relative, templates, case.expected[0]))
    noise = np.random.default_rng(0).standard_normal((PICTURES, *case.references.shape[1:]))
    noise = noise.astype(np.float32)
    found = case.open().run(case.start(noise) | case.aligned(PICTURES))
    loss, expected = case.reference(noise)
    errors = np.array(list(map(relative, gradient(found), expected)))
    cost = relative(losses(found)[0], loss)
    figures = " ".join(f"{error:.1e}" for error in sorted(errors))
    print(f"relative L2: templates {worst:.1e}, loss {cost:.1e}, gradients {figures}")
    assert worst <= PARITY
    assert cost <= PARITY
    (path,) = tmp_path.glob("step-*.onnx")
    for picture in np.flatnonzero(errors > PARITY):
        one = slice(picture, picture + 1)
        exact = evaluate_in_float64(path, case.start(noise[one]) | case.aligned())
        error = relative(gradient(exact), expected[one])
        jumps = max(relative(near, expected[one]) for near in case.nearby(noise[one]))
        print(f"in float64: {error:.1e}; where the picture is rounded otherwise: {jumps:.1e}")
        assert error <= PARITY / 10 or jumps >= PARITY
