"""Class activation maps: what a layer's activations A, weighted by the logit's gradient g, show.

Both [N, C, h, w]; each formula gives [N, 1, h, w], before its ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError
from onnxplain.export.sources.tracing import logits_of
from onnxplain.reference.pytorch.programs import Program


def _plus_plus(A: Tensor, g: Tensor) -> Tensor:
    alpha = g**2 / (2 * g**2 + g**3 * A.sum((2, 3), keepdim=True))
    weights = (alpha.nan_to_num(0.0) * g.relu()).sum((2, 3), keepdim=True)
    return (weights * A).sum(1, keepdim=True)


def _x(A: Tensor, g: Tensor) -> Tensor:
    weights = (g * A).sum((2, 3), keepdim=True) / A.sum((2, 3), keepdim=True)
    return (weights.nan_to_num(0.0) * A).sum(1, keepdim=True)


def _principal(X: Tensor) -> Tensor:
    """Of its singular value decomposition, with the sign by which its extreme is positive."""
    rows = X.flatten(2).mT
    rows = rows - rows.mean(1, keepdim=True)
    along = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[:, 0, :, None]
    along = torch.where(along.amax(1, True) < -along.amin(1, True), -along, along)
    return along.mT.reshape(len(X), 1, *X.shape[2:])


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": lambda A, g: (g.mean((2, 3), keepdim=True) * A).sum(1, keepdim=True),
    "gradcam++": _plus_plus,
    "xgradcam": _x,
    "layercam": lambda A, g: (g.relu() * A).sum(1, keepdim=True),
    "hirescam": lambda A, g: (g * A).sum(1, keepdim=True),
    "eigencam": lambda A, g: _principal(A),
    "eigengradcam": lambda A, g: _principal(g * A),
}
"""arXiv 1610.02391, 1710.11063, 2008.02312; LayerCAM, Jiang et al. 2021; arXiv 2011.08891,
2008.00299."""


def activation_map(method: str, A: Tensor, g: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, 1, H, W]: the positive part of the map, upsampled bilinearly to the image's size."""
    if _is_channels_last(A, size):
        A, g = A.permute(0, 3, 1, 2), g.permute(0, 3, 1, 2)
    low = FORMULAS[method](A, g).relu()
    return functional.interpolate(low, size, mode="bilinear", align_corners=False)


def masked(A: Tensor, k: int, images: Tensor) -> Tensor:
    """The images where a channel is active: its upsampled map, scaled to [0, 1], times them."""
    high = functional.interpolate(
        A[:, k : k + 1], images.shape[2:], mode="bilinear", align_corners=True
    )
    high = high - high.amin((2, 3), keepdim=True)
    return images * (high / (high.amax((2, 3), keepdim=True) + 1e-8))


PROBES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scorecam": lambda s, s_k: s_k.softmax(-1),
    "ablationcam": lambda s, s_k: (s - s_k) / s.abs(),
}
"""The weights of channels, of the scores [N, K, 1] and those of every change [N, K, C] (arXiv
1910.01279; Ablation-CAM, Desai & Ramaswamy 2020)."""


def probed_map(
    method: str,
    module: nn.Module,
    layer: str,
    images: Tensor,
    scores: Callable[[Tensor], Tensor],
) -> Tensor:
    """[N, K, 1, H, W]: the positive part of the map of a method that asks for every channel anew.

    Args:
        scores: of images [N, C, H, W], what is explained of each, [N, K].

    Raises:
        InputError: there is no such layer, or what it puts out cannot be replaced.
    """
    with outputs_of(module, layer) as outputs:
        s = scores(images)
    calls, kept, size = len(outputs), outputs[-1], (images.shape[2], images.shape[3])
    A = kept.permute(0, 3, 1, 2) if (last := _is_channels_last(kept, size)) else kept
    found = []
    for k in range(A.shape[1]):
        if method == "scorecam":
            found.append(scores(masked(A, k, images)))
            continue
        left = kept.clone()
        left.select(3 if last else 1, k).zero_()
        with _replaced(module, layer, calls, left):
            found.append(scores(images))
    weights = PROBES[method](s[..., None], torch.stack(found, -1))
    low = torch.einsum("nkc,nchw->nkhw", weights, A).relu()
    return functional.interpolate(low, size, mode="bilinear", align_corners=False)[:, :, None]


@contextmanager
def _replaced(module: nn.Module, layer: str, calls: int, value: Tensor) -> Iterator[None]:
    """While entered, the last of so many calls of a layer puts out another value."""
    if isinstance(module, Program):
        raise InputError("what a program's layer puts out cannot be replaced")
    left = calls

    def replace(_: nn.Module, __: object, output: object) -> Tensor | None:
        nonlocal left
        left -= 1
        if left:
            return None
        if not isinstance(output, Tensor):
            raise InputError(f"the layer {layer!r} puts out more than one tensor")
        return value

    hook = dict(module.named_modules())[layer].register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _is_channels_last(A: Tensor, size: tuple[int, int]) -> bool:
    """Whether axes 1 and 2 have the image's proportions rather than the last two."""

    def distortion(h: int, w: int) -> float:
        return abs(math.log(h / w) - math.log(size[0] / size[1]))

    return distortion(*A.shape[1:3]) < distortion(*A.shape[2:4])


@contextmanager
def outputs_of(module: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """While entered, what a layer puts out, [N, C, h, w] or [N, h, w, C], call by call.

    Raises:
        InputError: there is none of that path.
    """
    if isinstance(module, Program):
        with module.outputs_of(layer) as values:
            yield values
        return
    submodule, found = dict(module.named_modules()).get(layer), list[Tensor]()
    if submodule is None:
        raise InputError(f"the network has no submodule {layer!r}")

    def keep(_: nn.Module, __: object, output: object) -> object:
        kept = logits_of(output)
        if kept.ndim != 4:
            raise InputError(f"the layer {layer!r} puts out {list(kept.shape)}, not [N, C, h, w]")
        found.append(kept)
        return kept.clone() if kept is output else output  # what comes next may work in place

    hook = submodule.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def nothing() -> nullcontext[list[Tensor]]:
    """In place of `outputs_of` where the image itself is asked for."""
    return nullcontext([])
