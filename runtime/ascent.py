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
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.scalars import Temperatures, live_inputs
from onnxplain.runtime.inputs.targets import Targets, fixed_targets

_CLIPS = ("each", "last", "none")

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
    climb = _Climb(
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
    climb.check()
    if (reason := explainer.metadata.no_direction) is not None:
        raise InputError(reason)

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
class _Climb:
    """The parameters of `accentuate`."""

    steps: int
    alpha: float
    eps: float | None
    clip: str | int
    norm: float
    relative: bool
    normalise: bool
    margin: float
    away: bool

    def check(self) -> None:
        """Raise InputError for what cannot be used."""
        if self.clip not in _CLIPS and not (isinstance(self.clip, int) and self.clip >= 1):
            known = ", ".join(_CLIPS)
            raise InputError(f"clip is one of {known}, or a number of steps, not '{self.clip}'")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, not {self.steps}")
        for name, length in (("alpha", self.alpha), ("eps", self.eps)):
            if length is not None and not (math.isfinite(length) and length > 0):
                raise InputError(f"{name} must be a finite number above 0, not {length}")
        if not self.norm >= 1:
            raise InputError(f"norm must be at least 1, not {self.norm}")
        if self.margin and self.clip == "none":
            raise InputError("margin is for pixels that are clipped: leave it out, or clip them")
        if not 0 <= self.margin < math.inf:
            raise InputError(f"margin must be finite and not negative, not {self.margin}")

    @property
    def is_plain(self) -> bool:
        """Whether a step is the one that graphs are exported with."""
        return self.norm == 2 and self.normalise and not (self.relative or self.away)

    @property
    def limit(self) -> float:
        """What pixels are clipped to, either side of 0."""
        return 1 + self.margin

    def clips(self, step: int) -> bool:
        """Whether pixels are clipped after this step, counted from 1."""
        if isinstance(self.clip, int):
            return step % self.clip == 0
        return self.clip == "each" or (self.clip == "last" and step == self.steps)

    def step(
        self, start: NDArray[Any], x: NDArray[Any], g: NDArray[Any], count: int
    ) -> NDArray[Any]:
        """Pixels after the step of that number, from x along g; all are [N,C,H,W]."""
        if self.normalise:
            g = g / _nonzero(_norm(g, self.norm))
        if self.relative:
            g = g * _nonzero(_norm(x, self.norm))
        displacement = x + (-self.alpha if self.away else self.alpha) * g - start
        if self.eps is not None:
            displacement *= self.eps / np.maximum(_norm(displacement, self.norm), self.eps)
        x = start + displacement
        return x.clip(-self.limit, self.limit) if self.clips(count) else x


@dataclass(frozen=True)
class _Course:
    """The two ways to climb from a batch; `given` are the inputs as the graph takes them."""

    explainer: Explainer
    targets: NDArray[np.int64] | None
    temperature: Temperatures
    climb: _Climb
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


def _norm(x: NDArray[Any], p: float) -> NDArray[Any]:
    """Each sample's p-norm, [N,1,1,1]; summed in float64, lest a faint gradient become 0."""
    flat = np.abs(x.reshape(len(x), -1), dtype=np.float64)
    return np.linalg.norm(flat, p, axis=1).astype(x.dtype).reshape(-1, 1, 1, 1)


def _nonzero(norm: NDArray[Any]) -> NDArray[Any]:
    return np.where(norm > 0, norm, 1)


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
