"""What other packages give, in float64, of the same points, noise, draws, bounds and layers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
import zennit.composites
from captum.attr._core import integrated_gradients as captum_paths
from captum.attr._utils.approximation_methods import approximation_parameters
from numpy.typing import NDArray
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor, nn
from torch.nn import functional
from zennit.attribution import Gradient
from zennit.core import Composite

from onnxplain.bench.estimators.networks import Network
from onnxplain.errors import BackendError
from onnxplain.export.estimators.noise import noise
from onnxplain.export.estimators.paths import drawn

Array = NDArray[Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Asked:
    """One image [1, 3, h, w] and its class, of a module; all in float64.

    Attributes:
        others: other images [M, 3, h, w].
        parameters: of our file.
    """

    network: Network
    module: nn.Module
    image: Tensor
    target: int
    others: Tensor
    parameters: Mapping[str, Any]


Peer = Callable[[Asked], Array]


def _normalised(pixel: float) -> Tensor:
    return torch.from_numpy((pixel - np.array(MEAN)) / np.array(STD)).reshape(1, 3, 1, 1)


BLACK, WHITE = (_normalised(pixel).float().double() for pixel in (0, 1))
"""In float32's precision, as a file holds them."""

BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "black": lambda x: BLACK.expand_as(x),
    "mean": lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
}

# ----- Captum -----


def integrated_gradients(asked: Asked) -> Array:
    """The mean over baselines."""
    with mock.patch.object(captum_paths, "approximation_parameters", _points):
        return _integrated(asked)[0]


def completeness(asked: Asked) -> Array:
    with mock.patch.object(captum_paths, "approximation_parameters", _points):
        return total_and_delta(*_integrated(asked))


def total_and_delta(attributions: Array, delta: Array) -> Array:
    """What the attributions [N, C, h, w] add up to, and the `convergence_delta` [N], by which that
    misses what the logit gains: [2, N]. An error of either is one in units of the total."""
    return np.stack([attributions.sum((1, 2, 3)), delta])


def integrated_in_float64(asked: Asked) -> Array:
    """The same, with black and the places on the path in float64."""
    exact = {**BASELINES, "black": lambda x: _normalised(0).expand_as(x)}
    return _integrated(asked, exact)[0]


def _integrated(
    asked: Asked, baselines: Mapping[str, Callable[[Tensor], Tensor]] = BASELINES
) -> tuple[Array, Array]:
    found = [
        captum.attr.IntegratedGradients(asked.module).attribute(
            asked.image,
            baselines[name](asked.image),
            asked.target,
            n_steps=asked.parameters["steps"],
            internal_batch_size=1,
            return_convergence_delta=True,
        )
        for name in asked.parameters.get("baseline", "zero").split(",")
    ]
    attributions, deltas = zip(*found, strict=True)
    return _mean(attributions), _mean(deltas)


def _mean(values: Sequence[Tensor]) -> Array:
    return torch.stack([*values]).mean(0).detach().numpy()


def _points(method: str) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """Captum's, with the places on the path rounded to float32, as a file holds them."""
    weights, places = approximation_parameters(method)
    return weights, lambda steps: np.float32(places(steps)).astype(float).tolist()


def noise_tunnel(kind: str) -> Peer:
    """Around the gradient."""

    def peer(asked: Asked) -> Array:
        x, samples = asked.image, asked.parameters["samples"]
        extent = asked.parameters["sigma"] * (x.max() - x.min())
        moved = extent * torch.from_numpy(noise(samples, tuple(x.shape[1:]), 0))
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(asked.module))
        with mock.patch.object(torch, "normal", return_value=moved):
            found = tunnel.attribute(x, kind, nt_samples=samples, target=asked.target, abs=False)
        return found.detach().numpy()

    return peer


def gradient_shap(asked: Asked) -> Array:
    samples = asked.parameters["samples"]
    alphas, places = drawn(samples, 0)
    chosen = (places * len(asked.others)).astype(int)
    with (
        mock.patch.object(np.random, "uniform", return_value=alphas),
        mock.patch.object(np.random, "choice", return_value=chosen),
    ):
        found = captum.attr.GradientShap(asked.module).attribute(
            asked.image, asked.others, n_samples=samples, target=asked.target
        )
    return found.detach().numpy()


def guided_gradcam(asked: Asked) -> Array:
    layer = asked.module.get_submodule(asked.parameters["layer"])
    found = captum.attr.GuidedGradCam(asked.module, layer).attribute(
        asked.image, asked.target, interpolate_mode="bilinear"
    )
    return found.detach().numpy()


# ----- pytorch-grad-cam -----


class AtZero(AblationLayer):  # type: ignore[misc]
    """The paper's: 0 also where activations are negative, which pytorch-grad-cam puts at -1e7."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.axis = channels
        self.activations, self.indices = torch.empty(0), np.empty(0, np.int64)

    def set_next_batch(
        self, input_batch_index: int, activations: Tensor, num_channels_to_ablate: int
    ) -> None:
        one = activations[input_batch_index].clone()[None]
        self.activations = one.repeat(num_channels_to_ablate, *[1] * (one.ndim - 1))

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        for one, index in zip(self.activations, self.indices, strict=False):
            one.select(self.axis, index)[...] = 0
        return self.activations


def grad_cam(name: str) -> Peer:
    """A map before it is scaled to [0, 1], as large as the image."""

    def peer(asked: Asked) -> Array:
        layer = asked.module.get_submodule(asked.parameters["layer"])
        options: dict[str, Any] = {"reshape_transform": asked.network.grid}
        if name == "AblationCAM":
            options["ablation_layer"] = AtZero(0 if asked.network.grid is None else -1)
        made = getattr(pytorch_grad_cam, name)(asked.module, [layer], **options)
        with made as cam, contextlib.redirect_stderr(io.StringIO()):  # where it draws bars
            classes = [ClassifierOutputTarget(asked.target)]
            hooks = cam.activations_and_grads
            score = classes[0](hooks(asked.image)[0])
            if cam.uses_gradients:
                score.backward()
            A = hooks.activations[-1].numpy().copy()
            g = hooks.gradients[-1].numpy().copy() if cam.uses_gradients else None
            if name in ("ScoreCAM", "AblationCAM"):
                hooks.release()
            if name.startswith("Eigen"):
                low = get_2d_projection_with_sign_correction(A if g is None else g * A)
            else:
                low = cam.get_cam_image(asked.image, layer, classes, A, g, False)
        small = torch.from_numpy(np.asarray(low, np.float64)).relu()[:, None]
        size = asked.image.shape[2:]
        return functional.interpolate(small, size, mode="bilinear").detach().numpy()

    return peer


# ----- zennit -----


def of_zennit(name: Any, *arguments: Any) -> Peer:
    """A composite of zennit's. It merges norms that it finds, and such a norm goes on dividing by
    √(1 + eps)."""

    def peer(asked: Asked) -> Array:
        assert asked.network.canonizer
        made: Composite = getattr(zennit.composites, name)(
            *arguments, canonizers=[asked.network.canonizer()]
        )
        with Gradient(asked.module, made) as attributor:
            _, found = attributor(
                asked.image, lambda y: functional.one_hot(torch.tensor([asked.target]), y.shape[1])
            )
        return found.detach().numpy()

    return peer


# ----- lxt -----


def of_lxt(method: str) -> Peer:
    """The gradient times the image of a module with the patches of `lxt.efficient`."""

    def peer(asked: Asked) -> Array:
        x = asked.image.clone().requires_grad_()
        with _patched(method):
            asked.module(x)[0, asked.target].backward()
        assert x.grad is not None
        return (x * x.grad).detach().numpy()

    return peer


@contextlib.contextmanager
def _patched(method: str) -> Iterator[None]:
    lxt = _patches()
    forwards: list[tuple[Any, Any]] = [
        (nn.GELU, lxt.non_linear_forward),
        (nn.LayerNorm, lxt.layer_norm_forward),
    ]
    with contextlib.ExitStack() as stack:
        if method == "cp-lrp":
            forwards.append((nn.MultiheadAttention, lxt.cp_multi_head_attention_forward))
        else:
            attend = functional.scaled_dot_product_attention
            wrapped = lxt.wrap_attention_forward(lambda _, q, k, v: attend(q, k, v))
            stack.enter_context(
                mock.patch.object(
                    functional,
                    "scaled_dot_product_attention",
                    lambda q, k, v, *_: wrapped(None, q, k, v),
                )
            )
        for owner, forward in forwards:
            original = owner.forward
            stack.enter_context(mock.patch.object(owner, "forward", forward))
            stack.enter_context(mock.patch.object(owner, "original_forward", original, create=True))
        yield


def _patches() -> Any:
    """The package imports models that later versions of transformers have moved: without it, the
    patches alone.

    Raises:
        BackendError: lxt is not installed.
    """
    found = importlib.util.find_spec("lxt")
    if found is None or not found.submodule_search_locations:
        raise BackendError("lxt is not installed: pip install --no-deps lxt")
    package = ModuleType("lxt.efficient")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "efficient")]
    with mock.patch.dict(sys.modules, {"lxt.efficient": package}):
        return importlib.import_module("lxt.efficient.patches")


# ----- the papers' formulas -----


def weighted_map(weights: Callable[[Tensor, Tensor], Tensor]) -> Peer:
    """ReLU(Σ_k w_k A_k) of a layer's A and its gradient, as large as the image."""

    def peer(asked: Asked) -> Array:
        layer, kept = asked.module.get_submodule(asked.parameters["layer"]), list[Tensor]()
        hook = layer.register_forward_hook(lambda _, __, output: kept.append(output))
        score = asked.module(asked.image)[0, asked.target]
        hook.remove()
        (gradient,) = torch.autograd.grad(score, kept)
        grid = asked.network.grid or (lambda x: x)
        A, g = grid(kept[0].detach()), grid(gradient)
        low = (weights(A, g) * A).sum(1, keepdim=True).relu()
        return functional.interpolate(low, asked.image.shape[2:], mode="bilinear").numpy()

    return peer


def plus_plus(A: Tensor, g: Tensor) -> Tensor:
    """Chattopadhay et al. 2018, Eqs. 10 and 19, of the logit's exponential, whose derivatives are
    powers of g."""
    alpha = torch.where(g != 0, 1 / (2 + g * A.sum((2, 3), keepdim=True)), 0)
    return (alpha * g.relu()).sum((2, 3), keepdim=True)


def x_grad(A: Tensor, g: Tensor) -> Tensor:
    """Fu et al. 2020, Eq. 8."""
    total = A.sum((2, 3), keepdim=True)
    return (g * A / torch.where(total == 0, 1, total)).sum((2, 3), keepdim=True)


def attention_map(step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Peer:
    """R ← step(R, A, ∇A) over the layers; the class token's row of it, as large as the image."""

    def peer(asked: Asked) -> Array:
        seen: list[Tensor] = []

        def attend(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
            seen.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1))
            return seen[-1] @ v

        with mock.patch.object(functional, "scaled_dot_product_attention", attend):
            score = asked.module(asked.image)[0, asked.target]
        gradients = torch.autograd.grad(score, seen)
        R = torch.eye(seen[0].shape[-1], dtype=torch.float64)
        for A, g in zip(seen, gradients, strict=True):
            R = step(R, A.detach()[0], g[0])
        side = round((R.shape[0] - 1) ** 0.5)
        low = R[0, 1:].reshape(1, 1, side, side)
        size = asked.image.shape[2:]
        return functional.interpolate(low, size, mode="bilinear").numpy()

    return peer


def rollout(R: Tensor, A: Tensor, _: Tensor) -> Tensor:
    """Abnar & Zuidema 2020, section 3: R ← (Ā + I)/2 · R, rows adding up to 1."""
    mixed = (A.mean(0) + torch.eye(A.shape[-1])) / 2
    return mixed / mixed.sum(-1, keepdim=True) @ R


def attribution(R: Tensor, A: Tensor, g: Tensor) -> Tensor:
    """Chefer et al. 2021 (arXiv 2103.15679), Eqs. 5 and 6: R ← R + mean over heads (∇A ⊙ A)⁺ R."""
    return R + (g * A).relu().mean(0) @ R
