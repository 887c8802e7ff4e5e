"""Relevance under a condition: against zennit's hooks, and against zennit-crp where it is there."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner
from zennit.canonizers import Canonizer
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.reference.parity import Parity
from onnxplain.web import write_site

from ..reference.zennit_composites import composite
from ..small_transformers import IMAGES as OF_TOKENS
from ..small_transformers import SIZE as TOKENS_SIZE
from ..small_transformers import made
from .test_lrp_networks import awake, small_vgg

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
TARGETS = np.array([1, 5])


def small_resnet() -> nn.Module:
    """Two bottlenecks, each with a shortcut that has weights."""
    torch.manual_seed(0)
    block = torchvision.models.resnet.Bottleneck
    network = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10, width_per_group=16)
    return awake(network)


def of_zennit(
    module: nn.Module, layer: str, method: str, weights: np.ndarray, canonizer: Canonizer
) -> tuple[np.ndarray, np.ndarray]:
    """R of the layer's channels, each times its weight, carried on (Achtibat et al. 2023); and R of
    each channel. In float64."""
    x = torch.tensor(IMAGES).double().requires_grad_()
    found: list[torch.Tensor] = []
    with composite(method, [canonizer]).context(module.double()) as modified:
        seen = modified.get_submodule(layer).register_forward_hook(lambda *h: found.append(h[-1]))
        y = modified(x)
        seen.remove()
        hot = functional.one_hot(torch.tensor(TARGETS), y.shape[1]).double()
        (R,) = torch.autograd.grad(y, found[-1], hot, retain_graph=True)
        w = torch.tensor(weights).double().reshape(*weights.shape, *[1] * (R.ndim - 2))
        (pixels,) = torch.autograd.grad(found[-1], x, R * w)
    module.float()
    return pixels.numpy(), R.flatten(2).sum(2).numpy() if R.ndim > 2 else R.numpy()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, str, Callable[[], Canonizer]]] = {
    "a convolution, whose norm becomes part of it": (
        lambda: small_vgg(True), "features.4", "epsilon-plus", VGGCanonizer,
    ),
    "a dense layer": (lambda: small_vgg(True), "classifier.1", "epsilon-plus", VGGCanonizer),
    "beside a shortcut": (small_resnet, "layer2.0.conv2", "lrp-epsilon-plus-flat", ResNetCanonizer),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_through_some_channels_is_zennits(name: str, tmp_path: Path) -> None:
    make, layer, method, canonizer = NETWORKS[name]
    module, path = make(), tmp_path / "x.onnx"
    made = onnxplain.export(module, path, size=64, method=method, concept_layer=layer)
    (count,) = made.objective.inputs["concepts"].shape
    weights = np.random.default_rng(1).random((2, count)) * np.array([[1.0], [0.5]])
    found = onnxplain.load(path, "cpu")(IMAGES, TARGETS, concepts=weights)
    pixels, channels = of_zennit(module, layer, method, weights, canonizer())
    assert found.concept_relevance is not None
    assert Parity.of(found.pullback, pixels).relative_l2 <= 1e-4
    assert Parity.of(found.concept_relevance, channels).relative_l2 <= 1e-4


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """All goes through the layer, so that its channels share the whole."""
    module, path = small_resnet(), tmp_path_factory.mktemp("concepts") / "x.onnx"
    chosen = {"method": "lrp-epsilon-plus", "concept_layer": "layer1", "multi_target": True}
    onnxplain.export(module, path, size=64, **chosen)
    return module, path


def test_the_channels_add_up_to_the_whole(
    conditional: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    module, path = conditional
    onnxplain.export(module, tmp_path / "y.onnx", size=64, method="lrp-epsilon-plus")
    whole = onnxplain.load(tmp_path / "y.onnx", "cpu")(IMAGES, TARGETS).pullback
    explainer, targets = onnxplain.load(path, "cpu"), np.stack([TARGETS, [0, 0]], 1)
    total = np.zeros_like(whole)
    for channels in np.array_split(np.arange(256), 4):
        total += explainer(IMAGES, targets, concepts=channels).pullback[:, 0]
    assert Parity.of(total, whole).relative_l2 <= 1e-5
    every = explainer(IMAGES, targets)  # all channels, where none are said
    assert Parity.of(every.pullback[:, 0], whole).relative_l2 <= 1e-5
    assert every.concept_relevance is not None
    assert every.concept_relevance.shape == (2, 2, 256)
    assert onnxplain.verify(path, module, provider="cpu").passed


def test_channels_are_indices_or_weights(conditional: tuple[nn.Module, Path]) -> None:
    explainer, targets = onnxplain.load(conditional[1], "cpu"), [[1, 2], [3, 4]]
    weights = np.zeros(256)
    weights[[3, 17]] = 1
    expected = explainer(IMAGES, targets, concepts=weights).pullback
    assert np.array_equal(explainer(IMAGES, targets, concepts=[17, 3]).pullback, expected)
    each = np.stack([weights, np.zeros(256)])
    assert not explainer(IMAGES, targets, concepts=each).pullback[1].any()
    for wrong in ([256], [-1], [[3, 17]]):
        with pytest.raises(InputError, match=r"indices from 0 to 255, .* or floats, 256 for each"):
            explainer(IMAGES, targets, concepts=wrong)
    with pytest.raises(InputError, match=r"has the shape \[256\]"):
        explainer(IMAGES, targets, concepts=[0.5, 0.5])
    with pytest.raises(InputError, match="NaN or infinite"):
        explainer(IMAGES, targets, concepts=np.full(256, np.nan))


def test_the_command_line_takes_indices(
    conditional: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    shown = CliRunner().invoke(app, ["info", str(conditional[1])], env={"COLUMNS": "200"}).output
    assert "concepts [N, 256]: how much each channel of layer1" in shown
    assert "concept_relevance [N, K, 256]" in shown
    image = tmp_path / "noise.png"
    picture = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(image)
    given = ["explain", str(conditional[1]), str(image), "--target", "1", "-o", str(tmp_path / "o")]
    done = CliRunner().invoke(app, [*given, "--given", "concepts=3,17"])
    assert done.exit_code == 0, done.output


def test_a_channel_of_tokens_by_its_gradient(tmp_path: Path) -> None:
    """Its gradient times its value, summed over tokens; and that gradient alone, carried on."""
    module, path = made(), tmp_path / "x.onnx"
    chosen = {"method": "input-x-gradient", "concept_layer": "blocks.0"}
    onnxplain.export(module, path, size=TOKENS_SIZE, **chosen)
    found = onnxplain.load(path, "cpu")(OF_TOKENS, [0, 3], concepts=[2, 5])
    tokens: list[torch.Tensor] = []
    hook = module.blocks[0].register_forward_hook(lambda *given: tokens.append(given[-1]))
    x = torch.tensor(OF_TOKENS, requires_grad=True)
    score = module(x).gather(1, torch.tensor([[0], [3]])).sum()
    hook.remove()
    (g,) = torch.autograd.grad(score, tokens[0], retain_graph=True)
    only = torch.zeros(12)
    only[[2, 5]] = 1
    (pixels,) = torch.autograd.grad(tokens[0], x, g * only)
    channels = (g * tokens[0]).sum(1).detach().numpy()
    assert found.concept_relevance is not None
    assert Parity.of(found.concept_relevance, channels).relative_l2 <= 1e-5
    assert Parity.of(found.pullback, (pixels * x).detach().numpy()).relative_l2 <= 1e-5


def test_the_samples_of_an_estimator_have_their_images_condition(tmp_path: Path) -> None:
    module, path = small_vgg(True), tmp_path / "x.onnx"
    chosen = {"method": "lrp-epsilon-plus", "concept_layer": "features.6"}
    onnxplain.export(module, path, size=64, **chosen)
    weights = np.random.default_rng(1).random((2, 32))
    expected = onnxplain.load(path, "cpu")(IMAGES, TARGETS, concepts=weights).pullback
    without_noise = {"samples": 4, "chunk": 2, "sigma": 0.0}
    onnxplain.export(
        module, path, size=64, estimator="smoothgrad", parameters=without_noise, **chosen
    )
    found = onnxplain.load(path, "cpu")(IMAGES, TARGETS, concepts=weights).pullback
    assert Parity.of(found, expected).relative_l2 <= 1e-5


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"method": "gradcam"}, "'gradcam' gives none; choose an lrp method, attn-lrp or cp-lrp"),
        ({"method": "gradient"}, "'gradient' gives none"),
        ({"method": "lrp-epsilon", "concept_layer": "layer9"}, "has no layer 'layer9'"),
    ],
)
def test_what_is_no_condition_is_said(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    chosen = {"concept_layer": "layer1", **options}
    with pytest.raises(SourceError, match=why):
        onnxplain.export(small_resnet(), tmp_path / "x.onnx", size=64, **chosen)


def test_the_web_page_has_no_condition(conditional: tuple[nn.Module, Path], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"gives relevances, .* export with another method"):
        write_site([conditional[1]], tmp_path / "site")


def test_the_recipe_of_the_page_runs(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "relevance.md"
    (block,) = re.findall(r"```python\n((?:(?!```).)*concept_layer.*?)```", page.read_text(), re.S)
    given = {"network": small_resnet(), "image": torch.zeros(1, 3, 64, 64), "photograph": IMAGES}
    with contextlib.chdir(tmp_path):
        exec(block, given)


@pytest.mark.skipif(
    importlib.util.find_spec("crp") is None, reason="pip install --no-deps zennit-crp"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_authors_package_gives_the_same(name: str, tmp_path: Path) -> None:
    attribution = importlib.import_module("crp.attribution")
    make, layer, method, canonizer = NETWORKS[name]
    module, path, channels = make(), tmp_path / "x.onnx", [1, 4, 7]
    onnxplain.export(module, path, size=64, method=method, concept_layer=layer)
    found = onnxplain.load(path, "cpu")(IMAGES, TARGETS, concepts=channels).pullback
    x = torch.tensor(IMAGES).double().requires_grad_()
    conditions = [{"y": [int(k)], layer: channels} for k in TARGETS]
    attributor = attribution.CondAttribution(module.double())
    rules = composite(method, [canonizer()])
    attributor(x, conditions, rules, init_rel=torch.ones_like)
    assert x.grad is not None
    assert Parity.of(found, x.grad.numpy()).relative_l2 <= 1e-4
