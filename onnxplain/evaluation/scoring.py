"""One score: a metric of Quantus's asked of one image's explanation, its network in batches."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quantus.functions.mosaic_func import mosaic_creation

from onnxplain.errors import InputError
from onnxplain.evaluation.deferred import Deferred
from onnxplain.evaluation.metrics import (
    GREY,
    MASKED,
    MOSAIC,
    PATCHES,
    RANDOMISED,
    Metric,
    part,
)
from onnxplain.evaluation.networks import Networks
from onnxplain.evaluation.subject import Subject

Array = NDArray[Any]


class ScoreError(Exception):
    """There is no score; the message says why."""


@dataclass(frozen=True)
class Tiles:
    """What a mosaic is made of: two images of the target's class, the image itself the first, and
    two of others.

    Attributes:
        images: [4,C,H,W], in [-1, 1].
        classes: theirs.
    """

    images: Array
    classes: Sequence[int]


class Explained:
    """An image and its explanation, which is computed once for all metrics.

    Attributes:
        image: [1,C,H,W] in [-1, 1].
        mask: gives what it shows, bool [1,1,H,W]; None where that is not known.
    """

    def __init__(
        self,
        subject: Subject,
        image: Array,
        target: int,
        mask: Callable[[], Array] | None = None,
    ) -> None:
        self.subject, self.image, self.mask = subject, image, mask
        self.target = np.array([target])
        self._own: dict[bool, Array] = {}

    def explain(self, images: Array, targets: Array, times_image: bool) -> Array:
        if images is not self.image or not np.array_equal(targets, self.target):
            return self.subject.explain(images, targets, times_image)
        if times_image not in self._own:
            self._own[times_image] = self.subject.explain(images, targets, times_image)
        return self._own[times_image]


def score(metric: Metric, explained: Explained, tiles: Tiles | None, seed: int) -> float:
    """
    Args:
        tiles: for a metric that is `on` a mosaic.
        seed: of all that is drawn; below 2³².

    Raises:
        ScoreError: the metric has no answer for this image.
        BackendError: the runtime failed.
    """
    with _drawn_from(seed), warnings.catch_warnings():
        # A perturbation that changes nothing, as on grey, and the correlation of constants.
        warnings.simplefilter("ignore")
        try:
            view = _view(metric, explained, tiles, seed)
            height, width = explained.image.shape[2:]
            made = metric.made(height, width, explained.subject.classes, seed)
            asked = _asked_of_networks if metric.on == RANDOMISED else _asked
            found = float(asked(made, view))
        except (InputError, AssertionError, ValueError) as error:
            raise ScoreError(" ".join(str(error).split())) from error
    if not np.isfinite(found):
        raise ScoreError(f"the score is {found}: all that it compares is the same, or no number")
    return found


@dataclass(frozen=True)
class _View:
    """What a metric is given: [1,…] each.

    Attributes:
        images: what it perturbs.
        targets: the class.
        model: what it asks for logits or probabilities.
        explain: Quantus's `explain_func`.
        custom: Quantus's `custom_batch`.
        mask: Quantus's `s_batch`.
        perturb: in place of the metric's own function.
    """

    images: Array
    targets: Array
    model: _Model | Networks
    explain: Any
    custom: Any = None
    mask: Array | None = None
    perturb: Any = None


class _Model:
    """What metrics call of Quantus's `ModelInterface`."""

    def __init__(self, predict: Any) -> None:
        self._predict = predict

    def predict(self, x: Array, **_: Any) -> Deferred:
        answer: Deferred = self._predict(x)
        return answer

    def shape_input(self, x: Array, shape: Sequence[int], **_: Any) -> Array:
        return x.reshape(shape)


def _asked(made: Any, view: _View) -> float:
    """`quantus.Metric.__call__` of one image, whose network need not be PyTorch's."""
    made.explain_func, made.explain_func_kwargs = view.explain, {}
    if view.perturb is not None:
        made.perturb_func = view.perturb
    data = {
        "model": view.model,
        "x_batch": view.images,
        "y_batch": view.targets,
        "a_batch": None,
        "s_batch": view.mask,
        "custom_batch": view.custom,
    }
    data |= made.custom_preprocess(**data) or {}
    if data["custom_batch"] is None:
        del data["custom_batch"]
    made.evaluation_scores = list(made.evaluate_batch(**made.batch_preprocess(data)))
    made.custom_postprocess(**data)
    (found,) = made.evaluation_scores
    # Of a curve the area, for which Quantus 0.6 calls what NumPy 2.4 has no more.
    return float(np.trapezoid(found) / (len(found) - 1) if np.ndim(found) else found)


def _asked_of_networks(made: Any, view: _View) -> float:
    """The same of a metric that goes its own way, from one network to another."""
    data = {"model": view.model, "x_batch": view.images, "y_batch": view.targets}
    made.explain_func, made.explain_func_kwargs, made.batch_size = view.explain, {}, 1
    made.general_preprocess = lambda **_: data | made.custom_preprocess(a_batch=None, **data)
    made.explain_smooth_batch_numpy = partial(_smoothed, made, view.explain)
    (found,) = made(**data, device="cpu")
    return float(found)


def _smoothed(
    made: Any, explain: Any, model: Any, x_batch: Array, y_batch: Array, std: Array, **_: Any
) -> Array:
    """In place of `SmoothMPRT`'s, which asks Captum, sample by sample: the same samples."""
    noises = [np.random.randn(*x_batch.shape) * std for _ in range(made.nr_samples - 1)]
    noisy = [x_batch, *(x_batch + noise for noise in noises)]
    # One by one, as the other metrics do: memory stays that of one explanation.
    found = [explain(model, one.astype(np.float32), y_batch) for one in noisy]
    mean: Array = np.mean(found, axis=0)
    return mean


def _view(metric: Metric, explained: Explained, tiles: Tiles | None, seed: int) -> _View:
    subject = explained.subject

    def explain(model: Any, inputs: Array, targets: Array, **_: Any) -> Array:
        return explained.explain(inputs, targets, metric.times_image)

    def own() -> Array:
        return explained.explain(explained.image, explained.target, metric.times_image)

    asked = subject.asked(metric.softmax)
    if metric.on == MOSAIC:
        if tiles is None:
            raise ScoreError("a mosaic is of images of two classes at least, and there is one")
        mosaic, where = mosaic_of(tiles, seed)
        return _View(mosaic, explained.target, _Model(asked), explain, [where])
    if metric.on == PATCHES:
        patches = _Patches(explained.image)
        model = _Model(lambda there: asked(patches.shown(there)))
        return _View(patches.all, explained.target, model, lambda **_: patches.sums(own()))
    if metric.on == GREY:
        grey, whole = np.zeros_like(explained.image), explained.image.reshape(1, -1)

        def put_in(arr: Array, indices: Array, **_: Any) -> Array:
            put = arr.copy()
            np.put_along_axis(put, indices, np.take_along_axis(whole, indices, 1), 1)
            return put

        model = _Model(asked)
        return _View(grey, explained.target, model, lambda **_: own(), perturb=put_in)
    if metric.on == MASKED:
        if explained.mask is None:
            raise ScoreError("there is no mask of this image")

        def sizes(**_: Any) -> Array:
            size: Array = np.abs(own()).sum(1, keepdims=True)
            return size

        given = explained.image, explained.target, _Model(asked), sizes
        return _View(*given, mask=explained.mask())
    if metric.on == RANDOMISED:

        def explain_by(model: Networks, inputs: Array, targets: Array, **_: Any) -> Array:
            if model.subject is subject:
                return explained.explain(inputs, targets, metric.times_image)
            return model.subject.explain(inputs, targets, metric.times_image)

        networks = Networks(subject, metric.softmax)
        return _View(explained.image, explained.target, networks, explain_by)
    return _View(explained.image, explained.target, _Model(asked), explain)


class _Patches:
    """An image as its patches, each there (1) or mid-grey (0).

    Attributes:
        all: [1,1,rows,columns], ones.
    """

    def __init__(self, image: Array) -> None:
        self._image = image
        height, width = image.shape[2:]
        self._side = part(height, width, 4)
        self.all = np.ones((1, 1, height // self._side, width // self._side), np.float32)

    def shown(self, there: Array) -> Array:
        return self._image * there.repeat(self._side, 2).repeat(self._side, 3)

    def sums(self, attributions: Array) -> Array:
        """Each patch's, less their mean: Quantus refuses what has one sign, and a correlation does
        not see it."""
        side, (rows, columns) = self._side, self.all.shape[2:]
        total: Array = attributions.reshape(1, -1, rows, side, columns, side).sum((1, 3, 5))
        return (total - total.mean())[:, None]


def mosaic_of(tiles: Tiles, seed: int) -> tuple[Array, tuple[int, ...]]:
    """A mosaic, [1,C,H,W], by Quantus, and where its target is: row by row, 1 or 0.

    Each image has half its height and width.

    Raises:
        InputError: a side is odd.
    """
    count, channels, height, width = tiles.images.shape
    if height % 2 or width % 2:
        raise InputError(f"a mosaic of two by two has even sides, not {width} × {height}")
    halves = tiles.images.reshape(count, channels, height // 2, 2, width // 2, 2).mean((3, 5))
    classes = np.array(tiles.classes)
    made, _, _, where, targets = mosaic_creation(halves, classes, 1, seed or 1)
    own = targets.index(tiles.classes[0])
    return made[own : own + 1], where[own]


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """What NumPy's and Python's global generators give is by the seed, and later as before."""
    numpys, pythons = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
