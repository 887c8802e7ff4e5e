"""Captum's methods on an explain graph are Captum's on the network that it was made of."""

from __future__ import annotations

from pathlib import Path

import captum.attr
import pytest
import torch
from torch import nn

import onnxplain
from onnxplain.adapters import captum as adapted
from onnxplain.adapters.network import Network
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer

from .small import X, small_network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return small_network()


@pytest.fixture(scope="module")
def gradient(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    path = tmp_path_factory.mktemp("adapters") / "gradient.onnx"
    onnxplain.export(network, path, example=X, method="gradient")
    return onnxplain.load(path, "cpu")


def assert_close(found: torch.Tensor, right: torch.Tensor) -> None:
    assert right.norm() > 0
    assert (found - right).norm() / right.norm() < 1e-5


@pytest.mark.parametrize("target", [2, -1, [0, 3], torch.tensor([3, 1])])
@pytest.mark.parametrize("options", [{}, {"abs": False}])
def test_saliency(
    network: nn.Module, gradient: Explainer, target: object, options: dict[str, bool]
) -> None:
    found, right = (
        method.attribute(X.clone(), target, **options)
        for method in (adapted.Saliency(gradient), captum.attr.Saliency(network))
    )
    assert_close(found, right)


def test_input_times_gradient(network: nn.Module, gradient: Explainer) -> None:
    found = adapted.InputXGradient(gradient).attribute(X.clone(), 1)
    assert_close(found, captum.attr.InputXGradient(network).attribute(X.clone(), 1))


def test_integrated_gradients_and_their_delta(network: nn.Module, gradient: Explainer) -> None:
    options = {"baselines": 0.1 * X, "n_steps": 7, "return_convergence_delta": True}
    found, delta = adapted.IntegratedGradients(gradient).attribute(X, target=1, **options)
    right, of_captum = captum.attr.IntegratedGradients(network).attribute(X, target=1, **options)
    assert_close(found, right)
    torch.testing.assert_close(delta, of_captum, atol=1e-5, rtol=1e-4)


def test_a_noise_tunnel_with_the_same_draws(network: nn.Module, gradient: Explainer) -> None:
    answers = []
    for method in (adapted.Saliency(gradient), captum.attr.Saliency(network)):
        torch.manual_seed(0)
        tunnel = adapted.NoiseTunnel(method)
        answers.append(tunnel.attribute(X, nt_samples=4, nt_type="smoothgrad_sq", target=0))
    assert_close(*answers)


def test_a_pullback_is_the_files_own(network: nn.Module, tmp_path: Path) -> None:
    onnxplain.export(network, tmp_path / "x.onnx", example=X, method="excitation")
    right = torch.from_numpy(onnxplain.load(tmp_path / "x.onnx", "cpu")(X.numpy(), [3, 0]).pullback)
    method = adapted.Pullback(tmp_path / "x.onnx")
    assert_close(method.attribute(X, torch.tensor([3, 0])), right)
    (found,) = method.attribute((X,), [3, 0])
    assert_close(found, right)
    assert_close(adapted.Saliency(tmp_path / "x.onnx").attribute(X, [3, 0], abs=False), right)


def test_a_negative_target_is_counted_as_captum_counts_it(gradient: Explainer) -> None:
    method = adapted.Pullback(gradient)
    for target, right in ((-1, 3), ([-1, -4], [3, 0])):
        assert_close(method.attribute(X, target), method.attribute(X, right))
    for wrong in (4, [0, -5]):
        with pytest.raises(InputError, match="a target is from 0 to 3, or from -4 to -1, the last"):
            method.attribute(X, wrong)
    with pytest.raises(InputError, match="a target is the index of a class, or one for each image"):
        method.attribute(X, 0.5)


def test_a_class_activation_map_is_captums_interpolated(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "map.onnx"
    onnxplain.export(network, path, example=X, method="gradcam", layer="3")
    found = adapted.LayerGradCam(path).attribute(X, 2)
    right = captum.attr.LayerGradCam(network, network[3]).attribute(X, 2, relu_attributions=True)
    right = captum.attr.LayerAttribution.interpolate(right, X.shape[2:], "bilinear")
    assert_close(found, right.detach())


def test_what_a_file_cannot_be_differentiated_by_is_a_sentence(
    network: nn.Module, gradient: Explainer, tmp_path: Path
) -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(InputError, match=r"differentiate logits\[i, target\], not a loss"):
        Network(gradient)(x).square().sum().backward()
    with pytest.raises(InputError, match="no second derivative"):  # for a penalty of the gradient
        torch.autograd.grad(Network(gradient)(x)[:, 0].sum(), x, create_graph=True)
    with pytest.raises(InputError, match="this file's method is gradient: export it with"):
        adapted.LayerGradCam(gradient)
    onnxplain.export(network, tmp_path / "map.onnx", example=X, method="gradcam", layer="3")
    with pytest.raises(InputError, match="what raises the logit alone: relu_attributions=True"):
        adapted.LayerGradCam(tmp_path / "map.onnx").attribute(X, 0, relu_attributions=False)
    with pytest.raises(InputError, match="a direction in which to change the image, and gradcam"):
        Network(tmp_path / "map.onnx")
    onnxplain.export(network, tmp_path / "k.onnx", example=X, multi_target=True)
    with pytest.raises(InputError, match="several targets at a time: export it without"):
        adapted.Pullback(tmp_path / "k.onnx")
    onnxplain.export(network, tmp_path / "e.onnx", example=X, objective="embedding")
    with pytest.raises(InputError, match="explains embedding, and a classifier's logit is asked"):
        Network(tmp_path / "e.onnx")
