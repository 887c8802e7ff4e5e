"""Feature accentuation (arXiv 2507.22832): what would make the network see more of a class?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import (
    ALPHA,
    ALPHA_DEFAULT,
    EPS,
    EPS_DEFAULT,
    IMAGE,
    LIMIT,
    NEXT_IMAGE,
    ORIGIN,
    TARGET,
    Preprocessing,
)
from onnxplain.errors import InputError
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.inputs.targets import Targets

_CLIPS = ("each", "last", "none")


@dataclass(frozen=True, eq=False)
class Accentuation:
    """A gradient ascent from N photographs, one target each.

    Attributes:
        start: where it began, pixels in [-1, 1], float [N,C,H,W].
        end: where it came to, the same; beyond [-1, 1] if it was not clipped.
        targets: the class indices, int64 [N], none negative.
        before: the targets' probabilities at the start, [N].
        after: the same at the end.
        gain: by how much the targets' logits rose, [N].
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


def accentuate(
    explainer: Explainer,
    images: ImageLike | Sequence[ImageLike],
    targets: Targets = None,
    steps: int = 5,
    alpha: float = ALPHA_DEFAULT,
    eps: float | None = EPS_DEFAULT,
    clip: str = "each",
    temperature: float | None = None,
    progress: Callable[[int], None] | None = None,
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
        steps: how many, at least 1.
        alpha: the length α of a step, in units of the pixel space's L2 norm.
        eps: the farthest ε from the start, in the same units; None sets no bound.
        clip: to [-1, 1] after "each" step, after the "last" only, or "none".
        temperature: as for `Explainer.__call__`.
        progress: called with 1, 2, …, `steps`, as each step is done.

    Raises:
        InputError: an image, target or parameter that cannot be used; a graph of class activation
            maps or of relevances.
        BackendError: the runtime failed.
    """
    if clip not in _CLIPS:
        raise InputError(f"clip is one of {', '.join(_CLIPS)}, not '{clip}'")
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    for name, length in (("alpha", alpha), ("eps", eps)):
        if length is not None and not (math.isfinite(length) and length > 0):
            raise InputError(f"{name} must be a finite number above 0, not {length}")
    if explainer.metadata.is_map:
        raise InputError(
            f"{explainer.metadata.method} gives a map, not a direction in which to change the "
            "image; export with another method, such as excitation"
        )
    if explainer.metadata.is_relevance:
        raise InputError(
            f"{explainer.metadata.method} gives relevances, not a direction in which to change the "
            "image; export with another method, such as excitation"
        )

    pre = explainer.metadata.preprocessing
    batch, _ = as_batch(images, pre, explainer.backend.signature.dtype)
    explanation = explainer(batch, targets, temperature)
    if explanation.targets.size != len(explanation):
        raise InputError("feature accentuation takes one target per image")
    fixed = explanation.targets
    climb = _Climb(explainer, fixed, temperature, steps, alpha, eps, clip, progress)
    signature = explainer.backend.signature
    in_one_run = signature.batch is None and signature.least <= len(batch) <= (
        signature.most or len(batch)
    )
    if signature.step and in_one_run:
        climbed = climb.on_device(batch)
    else:
        climbed = climb.on_host(batch, explanation)
    after = explainer(climbed, fixed, temperature)
    return Accentuation(
        _to_pixels(batch, pre),
        _to_pixels(climbed, pre),
        fixed.reshape(-1),
        explanation.target_probabilities.reshape(-1),
        after.target_probabilities.reshape(-1),
        (after.target_logits - explanation.target_logits).reshape(-1),
    )


@dataclass(frozen=True)
class _Climb:
    """The parameters of `accentuate`, and the two ways to climb from a batch."""

    explainer: Explainer
    targets: NDArray[np.int64]
    temperature: float | None
    steps: int
    alpha: float
    eps: float | None
    clip: str
    progress: Callable[[int], None] | None

    def on_host(self, batch: NDArray[Any], explanation: Explanation) -> NDArray[Any]:
        """With the graph's pullback and numpy; `explanation` is that of `batch`."""
        pre = self.explainer.metadata.preprocessing
        start = x = _to_pixels(batch, pre)
        for step in range(1, self.steps + 1):
            if step > 1:
                explanation = self.explainer(batch, self.targets, self.temperature)
            g = explanation.pullback.reshape(x.shape) / (2 * _per_channel(pre.std, x))
            displacement = x + self.alpha * g / _nonzero(_norm(g)) - start
            if self.eps is not None:
                displacement *= self.eps / np.maximum(_norm(displacement), self.eps)
            x = start + displacement
            if self.clip == "each" or (self.clip == "last" and step == self.steps):
                x = x.clip(-1, 1)
            batch = _from_pixels(x, pre)
            if self.progress:
                self.progress(step)
        return batch

    def on_device(self, batch: NDArray[Any]) -> NDArray[Any]:
        """With a graph exported with a step: the images stay on the device between steps."""

        def scalar(value: float) -> NDArray[Any]:
            return np.array(value, batch.dtype)

        def climb(x: NDArray[Any], times: int, limit: float, done: int) -> NDArray[Any]:
            inputs = common | {IMAGE: x, LIMIT: scalar(limit)}
            report = self.progress
            count = None if report is None else lambda run: report(done + run)
            carried = {NEXT_IMAGE: IMAGE}
            last = self.explainer.backend.iterate(inputs, carried, times, progress=count)
            return last[NEXT_IMAGE]

        common = {
            ORIGIN: batch,
            TARGET: self.targets,
            ALPHA: scalar(self.alpha),
            EPS: scalar(math.inf if self.eps is None else self.eps),
            **self.explainer.temperature_input(self.temperature),
        }
        if self.clip != "last":
            return climb(batch, self.steps, 1.0 if self.clip == "each" else math.inf, 0)
        unclipped = climb(batch, self.steps - 1, math.inf, 0) if self.steps > 1 else batch
        return climb(unclipped, 1, 1.0, self.steps - 1)


def _norm(x: NDArray[Any]) -> NDArray[Any]:
    """Each sample's L2 norm, [N,1,1,1]; summed in float64, lest a faint gradient become 0."""
    squares = np.square(x, dtype=np.float64)
    norm: NDArray[Any] = np.sqrt(squares.sum(axis=(1, 2, 3), keepdims=True)).astype(x.dtype)
    return norm


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
