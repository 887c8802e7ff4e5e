"""Run a classifier under a method and pull its logits back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError
from onnxplain.reference.pytorch import baselines, excitation, norms, semantic
from onnxplain.reference.pytorch.replace import ReplacedBackward, Replacements

REPLACEMENTS: dict[str, Replacements] = {
    "excitation": excitation.REPLACEMENTS,
    "semantic": semantic.REPLACEMENTS,
    "guided": baselines.GUIDED,
    "deconvnet": baselines.DECONVNET,
}
METHODS = ("gradient", "input-x-gradient", *REPLACEMENTS)
TEMPERATURES = {"excitation": 0.3, "semantic": 1.0}


def explain(
    module: nn.Module,
    images: Tensor,
    targets: Tensor,
    method: str,
    temperature: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a classifier and explain its logits.

    Args:
        module: in evaluation mode, of the dtype of `images`; maps [N, C, H, W] to logits
            [N, classes]. TorchScript and compiled modules hide their calls: pass the plain one.
        images: [N, C, H, W].
        targets: int64 [N] or [N, K]: classes; negative ones count from the top of the ranking.
        method: one of `METHODS`.
        temperature: the T of "excitation" (0.3 where None), the factor on the temperatures of
            "semantic" (1 where None); no other method reads it.

    Returns:
        logits [N, classes], and the pullback, of shape [N, C, H, W] or [N, K, C, H, W].

    Raises:
        InputError: an unknown method, a temperature that is not positive, a module in training
            mode or without logits of [N, classes], targets of a wrong shape or out of range.
    """
    if method not in METHODS:
        raise InputError(f"the reference has no method {method!r}; it has {', '.join(METHODS)}")
    T = TEMPERATURES.get(method, 1.0) if temperature is None else temperature
    if not T > 0:
        raise InputError(f"the temperature must be positive, not {T}")
    if module.training:
        raise InputError("the module is in training mode; call module.eval() first")

    chosen = REPLACEMENTS.get(method, Replacements())
    functions = {functional.batch_norm: norms.batch_norm, **chosen.functions}
    replacements = Replacements(functions, chosen.modules)
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        with ReplacedBackward(replacements, T):
            # A copy, because the module's first operation may work in place.
            logits = module(leaf.clone())
        logits = getattr(logits, "logits", logits)  # as transformers' classifiers return them
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError("the module must return logits, one tensor of shape [N, classes]")
        classes = resolve_targets(logits.detach(), targets).reshape(len(images), -1)
        # In evaluation mode no image sees another: one sweep over their sum explains each.
        seeds = logits.gather(1, classes).sum(dim=0)
        sweeps = [torch.autograd.grad(seed, leaf, retain_graph=True)[0] for seed in seeds]
    pullback = torch.stack(sweeps, dim=1)
    if method == "input-x-gradient":
        pullback = images.detach()[:, None] * pullback
    return logits.detach(), pullback.reshape(*targets.shape, *images.shape[1:])


def resolve_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Classes ≥ 0 for targets of which the negative ones count from the top of the ranking.

    Args:
        logits: [N, classes]. Of equal logits the lower class ranks first, as in ONNX's TopK.
        targets: int64 [N] or [N, K]: -1 is the predicted class, -2 the runner-up.

    Returns:
        int64, of the shape of `targets`.

    Raises:
        InputError: a wrong shape, or a target outside [-classes, classes).
    """
    n, classes = logits.shape
    if targets.ndim not in (1, 2) or len(targets) != n:
        raise InputError(f"targets must be [N] or [N, K] with N = {n}, not {list(targets.shape)}")
    if ((targets < -classes) | (targets >= classes)).any():
        raise InputError(f"targets must lie in [{-classes}, {classes})")
    ranking = logits.argsort(dim=1, descending=True, stable=True)
    ranks = (-1 - targets).clamp(min=0)
    ranked = ranking.gather(1, ranks.reshape(n, -1)).reshape(targets.shape)
    return torch.where(targets < 0, ranked, targets)
