"""Is a backend right? Measured against ONNX Runtime on the CPU, in float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import LOGITS, PULLBACK
from onnxplain.contract.objective import EXPLAINED_BOX, EXPLAINED_CLASS
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.cosines import cosines
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import ImageLike
from onnxplain.runtime.inputs.each import each
from onnxplain.runtime.inputs.objective import noise_inputs
from onnxplain.runtime.inputs.pixels import Batch, as_input, noise_frames
from onnxplain.runtime.inputs.targets import resolve, target_input
from onnxplain.runtime.inputs.values import noise_values
from onnxplain.runtime.sessions import Backend, open_backend
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX
from onnxplain.runtime.values import ValuesExplanation, explain_values

Arrays: TypeAlias = dict[str, NDArray[Any]]

HALF = 0.99
"""The least cosine of a half precision; and of int8, where one rounding may go either way."""

_LEAST_COSINE = {"float64": 0.9999, "float32": 0.9999, "tf32": 0.999}


def least_cosine(precision: str) -> float:
    """Below this, a backend that computes in the precision is refused."""
    return _LEAST_COSINE.get(precision, HALF)


@dataclass(frozen=True)
class Agreement:
    """How a backend's answers compare with the reference's, over some images.

    Attributes:
        logits, pullback: the least cosine of an image's, 1 where they agree, 0 where one is more
            than twice as large; of what is no classifier, `logits` is that of all outputs and the
            objective. Of one number per image it is that of all images' together, and whole numbers
            are equal, 1, or not, 0.
        images: how many there were.
    """

    logits: float
    pullback: float
    images: int

    @property
    def cosine(self) -> float:
        """The lesser of the two; NaN if one of them is."""
        return float(np.min([self.logits, self.pullback]))


def reference(path: str | os.PathLike[str], threads: int | None = None) -> Explainer:
    """What every backend is measured against: ONNX Runtime on the CPU, in float32.

    Raises:
        BackendError: an engine, which ONNX Runtime cannot run; a file that it cannot load.
    """
    if Path(path).suffix == SUFFIX:
        raise BackendError(
            f"'{path}' is an engine, which ONNX Runtime cannot run to compare with: verify the "
            "explain graph that it was built from, with the engine's provider"
        )
    return Explainer(open_backend(path, "cpu", threads), path)


def sample(explainer: Explainer) -> NDArray[Any]:
    """Two images of seeded noise to measure on, or as many as the graph takes, as it takes them.

    Raises:
        BackendError: the file explains by something else.
    """
    explainer.metadata.require_image("a comparison on images")
    pre, signature = explainer.metadata.preprocessing, explainer.backend.signature
    if signature.metadata.pixels:
        return noise_frames(pre, signature.metadata.pixels, signature.batch or 2)
    shape = (signature.batch or 2, *pre.image_shape)
    noise = np.random.default_rng(0).standard_normal(shape)
    return noise.astype(signature.dtype)


def samples(explainer: Explainer, images: Sequence[ImageLike] | None = None) -> list[NDArray[Any]]:
    """Images to measure on, as the graph takes them, those of each size together; those given, or
    else `sample`.

    Raises:
        BackendError: the file explains by something else.
        InputError: an image cannot be used, or there is none.
    """
    if images is None:
        return [sample(explainer)]
    explainer.metadata.require_image("a comparison on images")
    of_size: dict[tuple[int, ...], list[NDArray[Any]]] = {}
    for image in each(images):
        batch = np.asarray(as_input(image, explainer.backend.signature)[0])
        of_size.setdefault(batch.shape[1:], []).append(batch)
    if not of_size:
        raise InputError("no image given")
    return [np.concatenate(batches) for batches in of_size.values()]


def usual_run(
    explainer: Explainer, images: Batch, batch_size: int | None = None
) -> Callable[[], object]:
    """What explains images, as the graph takes them, as the objective does by itself; noise is
    what it needs.

    Args:
        batch_size: as for `Explainer.__call__`.
    """
    signature, count = explainer.backend.signature, len(images)
    targets, inputs = target_input(signature, None, count), noise_inputs(signature, count)
    return partial(explainer.answer, images, targets, batch_size=batch_size, inputs=inputs)


def agreement(explainer: Explainer, right: Explainer, images: Batch) -> Agreement:
    """Compare two explainers of one graph on the classes, or the objects, that `right` predicts.

    The first image is explained alone too: a backend may run one image otherwise than several.

    Raises:
        BackendError: one of them failed.
    """
    signature = right.backend.signature
    targets = target_input(signature, None, len(images))
    given = noise_inputs(signature, len(images))
    expected = right.answer(images, targets, inputs=given)
    if signature.metadata.objective.is_class:
        targets = resolve(targets, expected[LOGITS])
    elif EXPLAINED_CLASS in expected and EXPLAINED_BOX not in expected:
        # By their index: where two are predicted alike, rounding may not decide which.
        chosen = expected[EXPLAINED_CLASS]
        targets = np.where(chosen < 0, targets, chosen).astype(np.int64)  # OpenVINO: no long long
        expected = right.answer(images, targets, inputs=given)
    first = {name: array[:1] for name, array in given.items()}
    # NaN and infinity too are only compared.
    together = explainer.answer(images, targets, inputs=given)
    alone = explainer.answer(images[:1], targets[:1], inputs=first)
    again = [*range(len(images)), 0]

    def least(name: str) -> float:
        axis = signature.metadata.objective.batch_axis(name)
        if axis is None:
            return _alike(together[name][None], expected[name][None])
        both = (np.moveaxis(found[name], axis, 0) for found in (together, alone))
        wanted = np.moveaxis(expected[name], axis, 0)
        return _alike(np.concatenate([*both]), wanted[again])

    names = [name for name, y in expected.items() if name != PULLBACK and _tells(name, y)]
    return Agreement(
        float(np.min([least(name) for name in names])),
        least(PULLBACK),
        len(images),
    )


def least_agreement(explainer: Explainer, right: Explainer, batches: Sequence[Batch]) -> Agreement:
    """The same over batches of several sizes.

    Raises:
        BackendError: one of them failed.
    """
    found = [agreement(explainer, right, images) for images in batches]
    return Agreement(
        float(np.min([one.logits for one in found])),
        float(np.min([one.pullback for one in found])),
        sum(one.images for one in found),
    )


def agreement_of_values(explainer: Explainer, right: Explainer) -> Agreement:
    """The same of a graph that explains by values, on noise of a length that it takes.

    Raises:
        BackendError: one of them failed.
    """
    signature = right.backend.signature
    given, own, expected = explained_noise(right.backend)
    targets = expected.targets if signature.metadata.objective.is_class else None
    found = explain_values(explainer.backend, given, targets, inputs=own)
    told = {name: y for name, y in expected.outputs.items() if y.ndim and _tells(name, y)}
    others = [_alike(found.outputs[name], y) for name, y in told.items()]
    if found.objective is not None and expected.objective is not None:
        others.append(_alike(found.objective, expected.objective))
    explained = [_alike(found.pullbacks[name], y) for name, y in expected.pullbacks.items()]
    return Agreement(
        float(np.min(others)), float(np.min(explained)), len(next(iter(given.values())))
    )


def explained_noise(backend: Backend) -> tuple[Arrays, Arrays, ValuesExplanation]:
    """Noise of a length that a graph takes, what its objective takes besides, and the explanation.

    Raises:
        BackendError: it takes none.
    """
    *first, last = noise_values(backend.signature)
    own = noise_inputs(backend.signature, len(next(iter(last.values()))))
    for given in first:
        try:
            return given, own, explain_values(backend, given, inputs=own)
        except BackendError:
            continue
    return last, own, explain_values(backend, last, inputs=own)


def _tells(name: str, output: NDArray[Any]) -> bool:
    """Whether backends must agree on it: not on the network's whole numbers, where rounding decides
    between two alike."""
    return output.dtype.kind == "f" or name == EXPLAINED_CLASS


def _alike(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """How alike stacks of arrays are, as `Agreement` has it."""
    if found.shape != expected.shape:
        return 0.0
    if expected.dtype.kind != "f":
        return float(np.array_equal(found, expected))
    if expected[0].size == 1:  # whose cosine is its sign
        found, expected = found.reshape(1, -1), expected.reshape(1, -1)
    sizes = np.array([np.linalg.norm(a.reshape(len(a), -1), axis=1) for a in (found, expected)])
    apart = np.isfinite(sizes).all(0) & (sizes.max(0) > 2 * sizes.min(0))
    alike = np.where(apart, 0.0, cosines(found, expected))
    return float(alike.min())


def verify(
    explainer: Explainer,
    path: str | os.PathLike[str],
    images: Sequence[ImageLike] | None = None,
    at_least: float | None = None,
) -> Agreement:
    """Refuse a backend that does not give what ONNX Runtime gives on the CPU in float32.

    Args:
        explainer: what `load` made of the file.
        path: the same file.
        images: what to compare on; two of noise where none are given.
        at_least: the least cosine; by default that of the precision (`least_cosine`).

    Raises:
        BackendError: the cosine is below; the sentence gives the figure.
    """
    backend = explainer.backend
    right = reference(path)
    if explainer.metadata.values and images is None:
        found = agreement_of_values(explainer, right)
    else:
        found = least_agreement(explainer, right, samples(right, images))
    least = least_cosine(backend.precision) if at_least is None else at_least
    for what, cosine in (("logits", found.logits), ("pullback", found.pullback)):
        if not cosine >= least:
            raise BackendError(
                f"{backend.name} on {backend.device} in {backend.precision} is not right on this "
                f"graph: the cosine of its {what} to ONNX Runtime's on the CPU in float32 is "
                f"{cosine:.6f} on {found.images} images, below {least:g}; use another provider or "
                "precision"
            )
    return found
