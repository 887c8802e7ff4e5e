"""Run a classifier under a method and pull its logits back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError, SourceError
from onnxplain.export.sources.tracing import logits_of
from onnxplain.reference.products import factors_of
from onnxplain.reference.pytorch import (
    baselines,
    cams,
    excitation,
    norms,
    relevance,
    semantic,
    transformer_lrp,
)
from onnxplain.reference.pytorch.replace import ReplacedBackward, Replacements, Temperatures

REPLACEMENTS: dict[str, Replacements] = {
    "gradient": Replacements(),
    "input-x-gradient": Replacements(),
    "excitation": excitation.REPLACEMENTS,
    "semantic": semantic.REPLACEMENTS,
    "guided": baselines.GUIDED,
    "deconvnet": baselines.DECONVNET,
    "attn-lrp": transformer_lrp.ATTN_LRP,
    "cp-lrp": transformer_lrp.CP_LRP,
}
TIMES_IMAGE = ("input-x-gradient", "attn-lrp", "cp-lrp")
PARAMETERS: dict[str, dict[str, Any]] = {
    **{method: {} for method in REPLACEMENTS},
    "excitation": {"temperature": 0.3, "relu": None, "max_pool": None},
    "semantic": {"temperature": 1.0, **semantic.TEMPERATURES._asdict()},
    **{method: {"layer": None} for method in cams.FORMULAS},
    **{method: {"layer": None, "chunk": 1} for method in cams.PROBES},
    **{method: {"epsilon": sharing.epsilon} for method, sharing in relevance.SHARINGS.items()},
    **{method: {"epsilon": 1e-6, "stabilizer": 1e-6} for method in relevance.COMPOSITES},
    "lrp-epsilon-gamma-box": {
        **{"epsilon": 1e-6, "stabilizer": 1e-6, "gamma": 0.25},
        "pixels": None,
    },
}
"""Method → its parameters and their defaults."""

METHODS = tuple(PARAMETERS)
PULLBACKS = tuple(REPLACEMENTS)
"""Those whose answer is a cotangent of the image, or times the image."""


def explain(
    module: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    method: str,
    temperature: float | None = None,
    objective: Callable[[Any], Tensor] | None = None,
    **parameters: Any,
) -> tuple[Tensor, Tensor]:
    """Run a classifier and explain its logits, or any network and explain what it is asked to.

    Args:
        module: in evaluation mode, of the dtype of `images`; maps [N, C, H, W] to logits
            [N, classes], or to what holds them (`onnxplain.export.sources.tracing.logits_of`); a
            final softmax or sigmoid is left out. TorchScript and compiled modules hide their
            calls: pass the plain one.
        images: [N, C, H, W].
        targets: int64 [N] or [N, K]: classes; negative ones count from the top of the ranking.
        method: one of `METHODS`, or a product of them, "guided*gradcam".
            Unused where there is an objective.
        objective: of what the module returns, the scalar of each image that is explained, [N].
        temperature: the T of "excitation" (0.3 where None), the factor on the temperatures of
            "semantic" (1 where None); no other method reads it.
        parameters: the others of the method, as the metadata of an explain graph name them:
            `layer`, the path of a submodule, of a class activation map; `epsilon`, `stabilizer` and
            `gamma` of relevances, and for z^B `pixels`, tensors of the least and the greatest;
            `relu`, `max_pool`, … of "excitation" and "semantic".

    Returns:
        logits [N, classes], or the objective [N]; and the pullback, of shape [N, C, H, W] or
        [N, K, C, H, W], C being 1 of a class activation map.

    Raises:
        InputError: an unknown method or parameter, a temperature or epsilon that is not positive,
            a module in training mode, without logits of [N, classes] or without that layer, targets
            of a wrong shape or out of range.
        NoRuleError: relevances have no rule for an operation here.
    """
    factors = factors_of(method)
    if len(factors) > 1:
        given = module, images, targets, temperature, objective
        return _multiplied(factors, parameters, *given)
    values = _values(method, temperature, parameters)
    if module.training:
        raise InputError("the module is in training mode; call module.eval() first")
    if method in cams.PROBES:
        return _probed(module, images.detach(), targets, method, objective, values)
    is_map = method in cams.FORMULAS
    leaf = images.detach().requires_grad_()
    watched = cams.outputs_of(module, str(values["layer"])) if is_map else cams.nothing()
    with torch.enable_grad(), _frozen(module):
        with watched as outputs, _mode(method, values):
            # A copy, because the module's first operation may work in place.
            output = module(leaf.clone())
        logits = _logits(output) if objective is None else objective(output)
        # In evaluation mode no image sees another: one sweep over their sum explains each.
        if objective is None:
            assert targets is not None
            shape = targets.shape
            classes = resolve_targets(logits.detach(), targets).reshape(len(images), -1)
            seeds = logits.gather(1, classes).sum(dim=0)
        else:
            shape, seeds = logits.shape, logits.sum().reshape(1)
        at = outputs[-1] if is_map else leaf
        sweeps = [torch.autograd.grad(seed, at, retain_graph=True)[0] for seed in seeds]
    if is_map:
        size = (images.shape[2], images.shape[3])
        sweeps = [cams.activation_map(method, at.detach(), g, size) for g in sweeps]
    pullback = torch.stack(sweeps, dim=1)
    if method in TIMES_IMAGE:
        pullback = images.detach()[:, None] * pullback
    return logits.detach(), pullback.reshape(*shape, *pullback.shape[2:])


@torch.no_grad()
def _probed(
    module: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    method: str,
    objective: Callable[[Any], Tensor] | None,
    values: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    def ask(x: Tensor) -> Tensor:
        with _mode(method, values):
            output = module(x.clone())
        return _logits(output) if objective is None else objective(output)

    explained, shape = ask(images), torch.Size([len(images)])
    classes: Tensor | None = None
    if objective is None:
        assert targets is not None
        shape, classes = targets.shape, resolve_targets(explained, targets).reshape(len(images), -1)

    def scores(x: Tensor) -> Tensor:
        return ask(x)[:, None] if classes is None else ask(x).gather(1, classes)

    found = cams.probed_map(method, module, str(values["layer"]), images, scores)
    return explained, found.reshape(*shape, *found.shape[2:])


def _multiplied(
    factors: Sequence[str],
    parameters: Mapping[str, Any],
    module: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    temperature: float | None,
    objective: Callable[[Any], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """The product of what several methods say, each with those of the parameters that it has."""
    known = {name for factor in factors for name in PARAMETERS.get(factor, ())}
    if unknown := parameters.keys() - known:
        raise InputError(f"the reference has no {', '.join(unknown)} of {'*'.join(factors)!r}")
    answers = []
    for factor in factors:
        own = {n: v for n, v in parameters.items() if n in PARAMETERS.get(factor, ())}
        T = own.pop("temperature", temperature)
        answers.append(explain(module, images, targets, factor, T, objective, **own))
    pullbacks = [pullback for _, pullback in answers]
    return answers[0][0], functools.reduce(torch.mul, pullbacks)


def _values(
    method: str, temperature: float | None, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    if method not in METHODS:
        raise InputError(f"the reference has no method {method!r}; it has {', '.join(METHODS)}")
    values = dict(PARAMETERS[method])
    if unknown := parameters.keys() - values.keys():
        raise InputError(f"the reference has no {', '.join(unknown)} of the method {method!r}")
    if temperature is not None and "temperature" in values:
        parameters = {"temperature": temperature, **parameters}
    for name, value in parameters.items():
        if name not in ("layer", "pixels") and not value > 0:
            raise InputError(f"the {name} must be positive, not {value}")
    return values | dict(parameters)


def _mode(method: str, values: Mapping[str, Any]) -> ReplacedBackward:
    if method in relevance.SHARINGS:
        return relevance.RelevanceFlow(method, **values)
    chosen = REPLACEMENTS.get(method, Replacements())
    functions = {functional.batch_norm: norms.batch_norm, **chosen.functions}
    replacements = Replacements(functions, chosen.modules)
    return ReplacedBackward(replacements, _temperatures(method, values))


def _temperatures(method: str, values: Mapping[str, Any]) -> Temperatures:
    """Excitation's own, or its one for all; semantic's, times its factor but attention's."""
    T: Any = values.get("temperature")
    if method == "excitation":
        each: dict[str, Any] = {
            name: T if values[name] is None else values[name] for name in ("relu", "max_pool")
        }
        return Temperatures(**each)
    if method == "semantic":
        factors = {"attention": 1.0}
        return Temperatures(
            **{name: factors.get(name, T) * values[name] for name in Temperatures._fields}
        )
    return Temperatures()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """While entered, what requires a gradient is what depends on the image."""
    trained = [
        parameter
        for parameter in module.parameters()
        if parameter.requires_grad and parameter.is_leaf
    ]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _logits(output: Any) -> Tensor:
    try:
        found = logits_of(output)
    except SourceError as error:
        raise InputError(str(error)) from error
    found = getattr(found, "_onnxplain_activated", found)
    if found.ndim != 2:
        raise InputError("the module must return logits, one tensor of shape [N, classes]")
    return found


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
