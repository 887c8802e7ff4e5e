"""Feature accentuation agrees with an independent PyTorch loop over the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import onnxplain
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.parity import Parity
from onnxplain.reference.pytorch import explain
from onnxplain.runtime.inputs.batches import as_batch

NETWORKS = {  # name → weights, size
    "resnet18": ("none", 64),
    "resnet50": ("none", 96),
    "vgg11_bn": ("none", 96),
    "densenet121": ("none", 96),
    "efficientnet-lite0": ("DEFAULT", 64),
}
TEMPERATURE = 0.3

_LONG = ("resnet50", "vgg11_bn", "densenet121")
_FEW = [("each", 30.0), ("last", 100.0), ("none", None)]

pytestmark = pytest.mark.xdist_group("accentuation")  # what they share takes long to make
networks = pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=pytest.mark.sweep if name in _LONG else ()) for name in NETWORKS],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module")
def network(request, tmp_path_factory):
    """A module in float64, and explainers of its graphs without and with the step."""
    weights, size = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    explainers = {}
    for name, step in (("host", False), ("device", True)):
        path = folder / f"{name}.onnx"
        onnxplain.export(
            request.param, path, weights=weights, size=size, step=step, temperature=TEMPERATURE
        )
        explainers[name] = onnxplain.load(path, threads=1)
    module = torch_network(request.param, weights, (size, size)).module.double()
    return module, explainers


def torch_ascent(
    module: torch.nn.Module,
    x: torch.Tensor,
    targets: torch.Tensor,
    std: tuple[float, ...],
    mean: tuple[float, ...],
    eps: float | None,
    clip: str,
) -> torch.Tensor:
    """The paper's loop, 5 steps of 20, on pixels in [-1, 1]; returns the difference."""
    s, m = (torch.tensor(v).double().view(-1, 1, 1) for v in (std, mean))
    start = pixels = (x * s + m) * 2 - 1
    for step in range(5):
        network_input = ((pixels + 1) / 2 - m) / s
        _, g = explain(module, network_input, targets, "excitation", TEMPERATURE)
        g = g / (2 * s)
        pixels = pixels + 20 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        if eps is not None:
            moved = pixels - start
            length = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            pixels = start + torch.where(length > eps, moved * eps / length, moved)
        if clip == "each" or (clip == "last" and step == 4):
            pixels = pixels.clamp(-1, 1)
    return pixels - start


@networks
@pytest.mark.parametrize(
    ("clip", "eps"),
    [
        pytest.param(clip, eps, marks=() if (clip, eps) in _FEW else pytest.mark.sweep)
        for clip in ("each", "last", "none")
        for eps in (30.0, 100.0, None)
    ],
)
def test_five_steps_agree_with_the_pytorch_loop(network, photographs, clip, eps) -> None:
    module, explainers = network
    pre = explainers["host"].metadata.preprocessing
    batch, _ = as_batch([photographs["chelsea"], photographs["coffee"]], pre)
    targets = torch.tensor([282, 504])
    expected = torch_ascent(
        module, torch.from_numpy(batch).double(), targets, pre.std, pre.mean, eps, clip
    )
    for explainer in explainers.values():
        found = onnxplain.accentuate(explainer, batch, targets.numpy(), eps=eps, clip=clip)
        for i in range(2):
            assert Parity.of(found.difference[i], expected[i].numpy()).cosine >= 0.999


def test_the_unrolled_graph_is_the_loop_in_one_call(
    lite0: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "unrolled.onnx"
    onnxplain.export("efficientnet-lite0", path, temperature=1.0, unroll=3)
    explainer = onnxplain.load(lite0, threads=1)
    batch, _ = as_batch(list(photographs.values()), explainer.metadata.preprocessing)
    loop = onnxplain.accentuate(explainer, batch, [-1, -2, 5], steps=3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, image, after = session.run(None, {"image": batch, "target": np.array([-1, -2, 5])})
    difference = 2 * (image - batch) * 0.5  # std 0.5: the network's space is the pixels'
    assert Parity.of(difference, loop.difference).cosine >= 0.999
    assert path.stat().st_size <= 1.05 * lite0.stat().st_size
    powers = np.exp(after - after.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities[range(3), loop.targets], loop.after, atol=1e-3)
    assert logits.argmax(1)[0] == loop.targets[0]


def test_an_unrolled_graph_says_that_it_has_no_pullback(
    lite0_forward: Path, tmp_path: Path
) -> None:
    onnxplain.export(lite0_forward, tmp_path / "u.onnx", unroll=1)
    with pytest.raises(onnxplain.OnnxplainError, match="unroll="):
        onnxplain.load(tmp_path / "u.onnx")


@networks
def test_a_graph_with_a_step_explains_as_one_without(
    network, photographs: dict[str, np.ndarray]
) -> None:
    _, explainers = network
    images = list(photographs.values())
    plain, step = (explainers[name](images) for name in ("host", "device"))
    np.testing.assert_allclose(step.logits, plain.logits, rtol=1e-4, atol=1e-5)
    assert Parity.of(step.pullback, plain.pullback).relative_l2 < 1e-4


def test_an_ascent_raises_the_target_in_nine_of_ten_cells(
    lite0: Path, photographs: dict[str, np.ndarray]
) -> None:
    """4 photographs × 6 classes at the temperature that tuning finds (about 1)."""
    import skimage.data
    import skimage.io

    folder = Path(skimage.data.__file__).parent
    moped = skimage.io.imread(folder / "motorcycle_left.png")
    images = [*photographs.values(), moped]
    # tiger cat, espresso, missile, moped, golden retriever, tiger
    classes = [282, 967, 657, 665, 207, 292]
    pairs = [image for image in images for _ in classes]
    found = onnxplain.accentuate(onnxplain.load(lite0, threads=1), pairs, classes * 4)
    assert (found.after > found.before).mean() >= 0.9


@pytest.mark.parametrize("most", [1, 2])
def test_more_images_than_fit_in_one_run_are_accentuated_all_the_same(tmp_path, most) -> None:
    """As with an engine of a profile that ends there."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 5)
    )
    path = tmp_path / "step.onnx"
    onnxplain.export(network.eval(), path, example=torch.zeros(1, 3, 12, 12), step=True)
    images = np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32) / 4
    explainer = onnxplain.load(path, "cpu")
    expected = onnxplain.accentuate(explainer, images, [0, 1, 2], alpha=1.0)
    backend = explainer.backend
    backend.signature = replace(backend.signature, most=most)
    run, seen = backend.run, []
    backend.run = lambda inputs: seen.append(len(inputs["image"])) or run(inputs)
    found = onnxplain.accentuate(explainer, images, [0, 1, 2], alpha=1.0)
    np.testing.assert_allclose(found.end, expected.end, atol=1e-4)
    assert max(seen) == most
