"""Feature accentuation (arXiv 2507.22832): what would make the network see more of a class?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import (
    ALPHA,
    EPS,
    IMAGE,
    LIMIT,
    NEXT_IMAGE,
    ORIGIN,
    TARGET,
    Preprocessing,
)
from onnxplain.errors import InputError
from onnxplain.options import also_called
from onnxplain.printable import Brief
from onnxplain.runtime.climb import Climb
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.scalars import Temperatures, live_inputs
from onnxplain.runtime.inputs.targets import Targets, fixed_targets

Own: TypeAlias = Literal["own"]
"""What the file's method ascends with, by its authors."""


@dataclass(frozen=True, eq=False, repr=False)
class Accentuation(Brief):
    """A gradient ascent from N photographs, one target each.

    Attributes:
        start: where it began, pixels in [-1, 1], float [N,C,H,W].
        end: where it came to, the same; beyond [-1, 1] if it was not clipped.
        targets: the class indices, int64 [N], none negative.
        before: the targets' probabilities at the start, [N]; the objective of no classifier.
        after: the same at the end.
        gain: by how much the targets' logits, or the objective, rose, [N].
    """

    start: NDArray[Any]
    end: NDArray[Any]
    targets: NDArray[np.int64]
    before: NDArray[Any]
    after: NDArray[Any]
    gain: NDArray[Any]

    @property
    def difference(self) -> NDArray[Any]:
        """What the ascent added, [N,C,H,W]; `render.signed_image` shows it."""
        difference: NDArray[Any] = self.end - self.start
        return difference


@also_called(target="targets")
def accentuate(
    explainer: Explainer,
    images: ImageLike | Sequence[ImageLike],
    targets: Targets = None,
    steps: int | Own = "own",
    alpha: float | Own = "own",
    eps: float | Own | None = "own",
    clip: str | int = "each",
    temperature: Temperatures = None,
    progress: Callable[[int], None] | None = None,
    *,
    norm: float = 2.0,
    relative: bool = False,
    normalise: bool = True,
    margin: float = 0.0,
    away: bool = False,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> Accentuation:
    """Change photographs along the pullback of a target, so that its features stand out.

    With pixels in [-1, 1], `x ← clip(x₀ + P_ε(x + α·g/‖g‖₂ − x₀), −1, 1)`, where g is the pullback
    in that space, norms are per photograph over C×H×W, and P_ε projects onto the ball of radius ε.
    Takes `steps + 1` runs of the graph. One exported with `step` takes one more, and keeps the
    images on its device.

    Args:
        explainer: made by `load`.
        images: as for `Explainer.__call__`.
        targets: the same, one per image; a negative one is looked up in the ranking at the start.
        steps: how many, at least 1. Steps, `alpha` and `eps` are the method's own unless given:
            5, 20 and 100; 10, 20 and none for `semantic`.
        alpha: the length α of a step, in units of the pixel space's norm.
        eps: the farthest ε from the start, in the same units; None sets no bound.
        clip: to [-1, 1] after "each" step, after the "last" only, or "none"; or after every so
            many steps.
        temperature: as for `Explainer.__call__`.
        progress: called with 1, 2, …, `steps`, as each step is done.
        norm: p of all norms, at least 1.
        relative: whether a step's length is α times the norm of the pixels.
        normalise: whether g is divided by its norm.
        margin: how far beyond [-1, 1] pixels may go when they are clipped.
        away: whether to descend, away from the target.
        inputs: what the file's objective takes besides, as for `Explainer.__call__`.

    Raises:
        InputError: an image, target or parameter that cannot be used; a graph whose pullback
            is no direction: class activation maps, relevances, products.
        BackendError: the runtime failed.
    """
    own = explainer.metadata.ascent
    climb = Climb(
        own.steps if steps == "own" else steps,
        own.alpha if alpha == "own" else alpha,
        own.eps if eps == "own" else eps,
        clip,
        norm,
        relative,
        normalise,
        margin,
        away,
    )
    climb.check(explainer.metadata)

    pre = explainer.metadata.preprocessing
    explainer.metadata.require_input("accentuation")
    batch, _ = as_batch(images, pre, explainer.backend.signature.dtype)
    explanation = explainer(batch, targets, temperature, **inputs)
    if explanation.targets.size != len(explanation):
        raise InputError("feature accentuation takes one target per image")
    signature = explainer.backend.signature
    fixed = fixed_targets(signature, explanation.targets, targets)
    given = as_inputs(signature, inputs, len(batch))
    course = _Course(explainer, fixed, temperature, climb, progress, inputs, given)
    in_one_run = signature.batch is None and signature.least <= len(batch) <= (
        signature.most or len(batch)
    )
    if signature.step and in_one_run and climb.is_plain:
        climbed = course.on_device(batch)
    else:
        climbed = course.on_host(batch, explanation)
    after = explainer(climbed, fixed, temperature, **inputs)
    before, reached = _scores(explanation), _scores(after)
    return Accentuation(
        _to_pixels(batch, pre),
        _to_pixels(climbed, pre),
        explanation.targets.reshape(-1),
        before[0],
        reached[0],
        reached[1] - before[1],
    )


def _scores(explanation: Explanation) -> tuple[NDArray[Any], NDArray[Any]]:
    """The targets' probabilities and logits, [N]; twice the objective of no classifier."""
    if explanation.objective is not None:
        return explanation.objective.reshape(-1), explanation.objective.reshape(-1)
    return explanation.target_probabilities.reshape(-1), explanation.target_logits.reshape(-1)


@dataclass(frozen=True)
class _Course:
    """The two ways to climb from a batch; `given` are the inputs as the graph takes them."""

    explainer: Explainer
    targets: NDArray[np.int64] | None
    temperature: Temperatures
    climb: Climb
    progress: Callable[[int], None] | None
    inputs: Mapping[str, Any]
    given: Mapping[str, NDArray[Any]]

    def on_host(self, batch: NDArray[Any], explanation: Explanation) -> NDArray[Any]:
        """With the graph's pullback and numpy; `explanation` is that of `batch`."""
        pre = self.explainer.metadata.preprocessing
        start = x = _to_pixels(batch, pre)
        for step in range(1, self.climb.steps + 1):
            if step > 1:
                explanation = self.explainer(
                    batch, self.targets, self.temperature, None, **self.inputs
                )
            g = explanation.pullback.reshape(x.shape) / (2 * _per_channel(pre.std, x))
            x = self.climb.step(start, x, g, step)
            batch = _from_pixels(x, pre)
            if self.progress:
                self.progress(step)
        return batch

    def on_device(self, batch: NDArray[Any]) -> NDArray[Any]:
        """With a graph exported with a step: the images stay on the device between steps."""
        climb = self.climb

        def scalar(value: float) -> NDArray[Any]:
            return np.array(value, batch.dtype)

        common = {
            ORIGIN: batch,
            **self.given,
            **({} if self.targets is None else {TARGET: self.targets}),
            ALPHA: scalar(climb.alpha),
            EPS: scalar(math.inf if climb.eps is None else climb.eps),
            **live_inputs(self.explainer.backend.signature, self.temperature),
        }
        x, done = batch, 0
        for clips, alike in groupby(range(1, climb.steps + 1), climb.clips):
            times, before = len(list(alike)), done
            limit = scalar(climb.limit if clips else math.inf)
            report = self.progress
            count = None if report is None else partial(_reported, report, before)
            last = self.explainer.backend.iterate(
                common | {IMAGE: x, LIMIT: limit}, {NEXT_IMAGE: IMAGE}, times, progress=count
            )
            x, done = last[NEXT_IMAGE], before + times
        return x


def _reported(report: Callable[[int], None], before: int, run: int) -> None:
    report(before + run)


def _to_pixels(batch: NDArray[Any], pre: Preprocessing) -> NDArray[Any]:
    """From the network's input to pixels in [-1, 1], [N,C,H,W]."""
    x = np.moveaxis(batch, -1, 1) if pre.layout == "NHWC" else batch
    pixels: NDArray[Any] = 2 * (x * _per_channel(pre.std, x) + _per_channel(pre.mean, x)) - 1
    return pixels


def _from_pixels(x: NDArray[Any], pre: Preprocessing) -> NDArray[Any]:
    batch = ((x + 1) / 2 - _per_channel(pre.mean, x)) / _per_channel(pre.std, x)
    return np.moveaxis(batch, 1, -1) if pre.layout == "NHWC" else batch


def _per_channel(values: tuple[float, ...], like: NDArray[Any]) -> NDArray[Any]:
    return np.array(values, like.dtype).reshape(-1, 1, 1)
