"""Activation maps that ask the network again for every channel: Score-CAM and Ablation-CAM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import SourceError
from onnxplain.reference.parity import Parity
from onnxplain.runtime.cache import cache_folder

from .test_cams import noise
from .test_token_layers import SIZE as TOKENS_SIZE
from .test_token_layers import file_of, with_registers, without_first
from .traces import once

Tensor = torch.Tensor
SIZE = 32, 40
METHODS = "scorecam", "ablationcam"
TARGETS = [1, 5, 0]


class Residual(torch.nn.Module):
    """A branch goes around what is asked for, and SiLU is spelled out behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = torch.nn.Conv2d(3, 12, 3, 2, 1), torch.nn.ReLU()
        self.branch, self.last = torch.nn.Conv2d(12, 12, 3, 1, 1), torch.nn.SiLU()
        self.head = torch.nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        return self.head(self.last(x + self.branch(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Residual:
    torch.manual_seed(0)
    made = Residual()
    torch.nn.init.normal_(made.head.weight)
    return made.eval()


@pytest.fixture(scope="module")
def source(net: Residual) -> Path:
    def write(path: Path) -> None:
        options: dict[str, Any] = {"opset_version": 20, "external_data": False, "verbose": False}
        batch = ({0: torch.export.Dim("batch")},)
        image = (torch.zeros(2, 3, *SIZE),)
        torch.onnx.export(net, image, path, dynamo=True, dynamic_shapes=batch, **options)

    return once(cache_folder("made") / "probed.onnx", write)


class AtZero(AblationLayer):
    """The paper's: 0 also where activations are negative, which pytorch-grad-cam puts at -1e7."""

    def __call__(self, x: Tensor) -> Tensor:
        for i, activations in enumerate(self.activations):
            activations[self.indices[i]] = 0
        return self.activations


class TokensAtZero(AblationLayerVit):
    def __call__(self, x: Tensor) -> Tensor:
        for i, activations in enumerate(self.activations):
            activations[:, self.indices[i]] = 0
        return self.activations


def of_pytorch_grad_cam(
    cam: ScoreCAM | AblationCAM, layer: torch.nn.Module, images: np.ndarray, targets: list[int]
) -> np.ndarray:
    """In float64, before it scales each image's map to [0, 1]."""
    x, classes = torch.tensor(images).double(), [ClassifierOutputTarget(t) for t in targets]
    hooks = cam.activations_and_grads
    hooks(x)
    A = hooks.activations[-1].numpy().copy()
    hooks.release()
    low = torch.tensor(cam.get_cam_image(x, layer, classes, A, None)).relu()
    assert low.amax((1, 2)).all()
    return functional.interpolate(low[:, None], images.shape[2:], mode="bilinear").numpy()


@pytest.mark.parametrize(
    ("method", "layer", "chunk"),
    [
        ("scorecam", "relu", 1),
        ("scorecam", "branch", 5),  # in fours
        ("ablationcam", "relu", 1),
        ("ablationcam", "branch", 12),
        ("ablationcam", "last", 3),
    ],
)
def test_a_map_is_pytorch_grad_cams(
    method: str, layer: str, chunk: int, net: Residual, source: Path, tmp_path: Path
) -> None:
    path, images = tmp_path / "x.onnx", noise(*SIZE)
    parameters = {"chunk": chunk}
    made = onnxplain.export(source, path, method=method, layer=layer, parameters=parameters)
    found = onnxplain.load(path)(images)
    at = net.double().get_submodule(layer)
    peer = ScoreCAM if method == "scorecam" else AblationCAM
    options: dict[str, Any] = {}
    if method == "ablationcam" and layer != "relu":
        options = {"ablation_layer": AtZero()}
    expected = of_pytorch_grad_cam(peer(net, [at], **options), at, images, found.targets.tolist())
    net.float()
    assert Parity.of(found.pullback, expected).relative_l2 <= 1e-5
    assert made.parameters == {"layer": layer, **(parameters if chunk > 1 else {})}
    assert not made.replaced
    assert not made.ordinary


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_asked_for_like_maps(method: str, tmp_path: Path) -> None:
    path, images, layer = tmp_path / "x.onnx", noise(*TOKENS_SIZE), "blocks.0"
    made = onnxplain.export(file_of("registers"), path, method=method, layer=layer)
    found = onnxplain.load(path)(images)
    module = with_registers().double()
    at, transform = module.get_submodule(layer), without_first(3, 4)
    cam = ScoreCAM(module, [at], transform)
    if method == "ablationcam":
        cam = AblationCAM(module, [at], transform, ablation_layer=TokensAtZero())
    expected = of_pytorch_grad_cam(cam, at, images, found.targets.tolist())
    assert Parity.of(found.pullback, expected).relative_l2 <= 1e-4
    assert "4 × 6 tokens" in str(made.notes)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_share_what_is_asked(method: str, source: Path, tmp_path: Path) -> None:
    several, one, images = tmp_path / "several.onnx", tmp_path / "one.onnx", noise(*SIZE, 2)
    options: dict[str, Any] = {"method": method, "layer": ["relu", "last"]}
    made = onnxplain.export(source, several, multi_target=True, **options)
    single = onnxplain.export(source, one, **options)
    assert made.multiply_adds == single.multiply_adds
    found = onnxplain.load(several)(images, [[0, -1, 5], [2, 2, -2]])
    for k in range(3):
        alone = onnxplain.load(one)(images, found.targets[:, k]).pullback
        np.testing.assert_allclose(found.pullback[:, k], alone, rtol=1e-4, atol=1e-7)


def test_what_speaks_for_a_class_is_seen_where_its_logit_is_negative_too(
    net: Residual, source: Path, tmp_path: Path
) -> None:
    """pytorch-grad-cam divides by the logit, not by its size, and shows the opposite there."""
    onnxplain.export(source, tmp_path / "x", method="ablationcam", layer="last")
    images = noise(*SIZE, 1)
    found = onnxplain.load(tmp_path / "x")(images, [-6])
    (logit,) = found.logits.min(1)
    assert logit < 0
    kept: list[Tensor] = []
    hook = net.last.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        net(torch.tensor(images))
    hook.remove()
    shares = net.head.weight[found.targets[0]] * kept[0].mean((2, 3))  # all is linear behind it
    low = torch.einsum("nc,nchw->nhw", shares / abs(logit), kept[0]).relu()
    expected = functional.interpolate(low[:, None], SIZE, mode="bilinear").detach().numpy()
    assert Parity.of(found.pullback, expected).relative_l2 <= 1e-4


def test_what_a_channel_is_worth_is_asked_of_the_layers_behind_alone(
    source: Path, tmp_path: Path
) -> None:
    cost = {}
    for method, layer in (("scorecam", "last"), ("ablationcam", "last"), ("ablationcam", "relu")):
        made = onnxplain.export(source, tmp_path / "x", method=method, layer=layer)
        cost[method, layer] = made.multiply_adds["explain"] / made.multiply_adds["forward"]
    assert cost["scorecam", "last"] == pytest.approx(13, abs=0.1)
    assert cost["ablationcam", "last"] == pytest.approx(1, abs=0.1)
    assert 2 < cost["ablationcam", "relu"] < 13
    options: dict[str, Any] = {"method": "ablationcam", "layer": "last"}
    one = onnxplain.export(source, tmp_path / "x", **options)
    three = onnxplain.export(source, tmp_path / "x", **options, parameters={"chunk": 3})
    assert three.multiply_adds == one.multiply_adds  # whose chunks are of as many images


@pytest.mark.parametrize("method", METHODS)
def test_the_file_has_every_weight_once(method: str, source: Path, tmp_path: Path) -> None:
    def numbers(path: Path) -> int:
        return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)

    onnxplain.export(source, tmp_path / "x", method=method, parameters={"chunk": 4})
    assert numbers(tmp_path / "x") <= 1.05 * numbers(source) + 50
    (loop,) = (n for n in onnx.load(tmp_path / "x").graph.node if n.op_type == "Loop")
    assert len(loop.attribute[0].g.output) == 2  # whether it goes on, and the scores


@pytest.mark.parametrize("method", METHODS)
def test_runtimes_agree(method: str, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    images, path = noise(*SIZE, 2), tmp_path / "x.onnx"
    onnxplain.export(source, path, method=method, layer="branch", parameters={"chunk": 4})
    found, expected = (
        onnxplain.load(path, name)(images, [1, -1]).pullback for name in ("openvino", "cpu")
    )
    assert Parity.of(found, expected).relative_l2 <= 1e-4


def test_tensorrt_takes_it(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt import build_engine

    options: dict[str, Any] = {"layer": "branch", "parameters": {"chunk": 4}}
    onnxplain.export(source, tmp_path / "x.onnx", method="scorecam", **options)
    assert build_engine(tmp_path / "x.onnx").outputs["pullback"].shape == (None, 1, *SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"chunk": 0}}, "chunk must be a whole number from 1 to 10000, not 0"),
        ({"parameters": {"chunk": 2.5}}, "chunk must be a whole number .* not 2.5"),
        ({"parameters": {"chunks": 2}}, "method 'scorecam' has no chunks; .*it has chunk"),
        ({"live": ["chunk"]}, "chunk is decided at export; it cannot be live"),
        ({"method": "gradcam", "parameters": {"chunk": 2}}, "'gradcam' has no chunk; leave it out"),
        (
            {"estimator": "smoothgrad", "parameters": {"chunk": 2}},
            "method 'scorecam' and estimator 'smoothgrad' both have chunk; leave it out",
        ),
        ({"layer": "hed"}, "no layer 'hed'; did you mean head"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    options: dict[str, Any], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(source, tmp_path / "x", **{"method": "scorecam", **options})


@pytest.mark.parametrize("method", METHODS)
def test_any_objective_is_asked_for(method: str, source: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": method, "layer": "branch"}
    several: dict[str, Any] = {"parameters": {"chunk": 2}}
    with pytest.raises(SourceError, match="chunk above 1 explains classes alone; leave it out"):
        onnxplain.export(source, tmp_path / "x", objective="value", **options, **several)
    onnxplain.export(source, tmp_path / "a", objective="value", **options)
    onnxplain.export(source, tmp_path / "b", **options)
    found, expected = (onnxplain.load(tmp_path / n)(noise(*SIZE), TARGETS).pullback for n in "ab")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_under_noise_too(source: Path, tmp_path: Path) -> None:
    """An estimator's loop, of which each turn has the channels' within."""
    options: dict[str, Any] = {"method": "ablationcam", "layer": "last"}
    smooth = {"estimator": "smoothgrad", "parameters": {"samples": 2, "sigma": 0}}
    onnxplain.export(source, tmp_path / "a", **options, **smooth)
    onnxplain.export(source, tmp_path / "b", **options)
    found, expected = (onnxplain.load(tmp_path / n)(noise(*SIZE, 2)).pullback for n in "ab")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_the_table_says_what_a_channel_costs() -> None:
    shown = CliRunner().invoke(app, ["methods", "--markdown"]).output
    assert re.search(r"`scorecam` \| 1 \+ 1 per channel \|", shown)
    assert re.search(r"`ablationcam` \| 1 \+ the layers behind per channel \|", shown)
    shown = CliRunner().invoke(app, ["methods", "scorecam"]).output
    assert "chunk" in shown
