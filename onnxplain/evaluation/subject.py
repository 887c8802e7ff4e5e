"""What is evaluated: a file's explanations and its network, asked in pixels of [-1, 1]."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.adapters.network import check_classifier
from onnxplain.contract.explain import DIRECTION, IMAGE, LOGITS, Preprocessing
from onnxplain.contract.pixels import Pixels
from onnxplain.errors import InputError
from onnxplain.evaluation.deferred import Deferred, Together
from onnxplain.reference.forward import write_forward
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.onnx_file import weights_beside
from onnxplain.runtime.outputs import in_floats
from onnxplain.runtime.predictions import probabilities_of
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX

Array = NDArray[Any]

_TOGETHER = 64  # images run at once, at most


@dataclass(frozen=True)
class Subject:
    """A classifier's explain graph, whose images are pixels in [-1, 1], float32 [N,C,H,W].

    Attributes:
        name: as tables call it.
        digest: of what its answers are of: the file, the provider and the precision.
        explainer: the file, opened.
        logits: of images, [N, classes]: the forward pass alone, where it can be cut out.
        classes: how many there are.
    """

    name: str
    digest: str
    explainer: Explainer
    logits: Callable[[Array], Array]
    classes: int

    @property
    def preprocessing(self) -> Preprocessing:
        return self.explainer.metadata.preprocessing

    def explain(self, images: Array, targets: Array, times_image: bool = False) -> Array:
        """The attributions of some targets: float [N,C,H,W], or of one channel.

        A pullback that is a direction is by pixels in [-1, 1], and not by the network's normalised
        ones, of which 2·std go to one of these.

        Args:
            times_image: take a direction times the image; other kinds are contributions already.
        """
        pre, signature = self.preprocessing, self.explainer.backend.signature
        given = as_normalised(images, pre).astype(signature.dtype, copy=False)
        answer = self.explainer.answer(given, np.asarray(targets, np.int64))
        pullback = answer["pullback"].astype(np.float32, copy=False)
        if self.explainer.metadata.kind != DIRECTION:
            return pullback
        of_pixels: Array = pullback / (2 * np.array(pre.std, np.float32)).reshape(-1, 1, 1)
        return of_pixels * images if times_image else of_pixels

    def asked(self, softmax: bool) -> Callable[[Array], Deferred]:
        """Logits, or their softmax, computed when they are looked at, many images together."""

        def probabilities(images: Array) -> Array:
            return probabilities_of(self.logits(images), "softmax")

        return Together(probabilities if softmax else self.logits, _TOGETHER)


def as_pixels(normalised: Array, pre: Preprocessing) -> NDArray[np.float32]:
    """A network's input as pixels in [-1, 1], float32 [N,C,H,W]."""
    x = np.moveaxis(normalised, -1, 1) if pre.layout == "NHWC" else normalised
    mean, std = (np.array(v, np.float64).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
    return np.ascontiguousarray(2 * (x * std + mean) - 1, np.float32)


def as_normalised(pixels: Array, pre: Preprocessing) -> NDArray[np.float32]:
    """The reverse, in the network's layout."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
    x = ((pixels + 1) / 2 - mean) / std
    return np.ascontiguousarray(np.moveaxis(x, 1, -1) if pre.layout == "NHWC" else x, np.float32)


def opened(
    path: Path, name: str, folder: Path, provider: str, precision: str, threads: int | None
) -> Subject:
    """A file to be evaluated.

    Args:
        folder: for what is cut out of it, kept as long as the subject.
        provider, precision, threads: as for `onnxplain.load`.

    Raises:
        BackendError: as `onnxplain.load`.
        InputError: it explains no classifier's logit of normalised images of one size.
    """
    explainer = load(path, provider, precision, threads)
    metadata = explainer.metadata
    check_classifier(metadata, explainer.multi_target)
    if metadata.values or metadata.pixels != Pixels() or metadata.preprocessing.any_size:
        raise InputError(
            f"'{path}' does not take normalised images of one size, which are perturbed here: "
            "export it with preprocess=False, and with size="
        )
    if metadata.estimator.inputs:
        raise InputError(f"'{path}' takes {', '.join(metadata.estimator.inputs)} besides an image")
    backend = explainer.backend
    chosen = {"provider": backend.provider, "precision": backend.precision}
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256(json.dumps([content, chosen]).encode()).hexdigest()
    if path.suffix == SUFFIX:
        logits = _of_explainer(explainer)
    else:
        logits = _forward(explainer, path, folder / digest, precision, threads)
    example = np.zeros((1, *metadata.preprocessing.shape(metadata.preprocessing.channels)))
    classes = logits(as_pixels(example, metadata.preprocessing)).shape[1]
    return Subject(name, digest, explainer, logits, classes)


def _of_explainer(explainer: Explainer) -> Callable[[Array], Array]:
    pre, dtype = explainer.metadata.preprocessing, explainer.backend.signature.dtype

    def logits(images: Array) -> Array:
        targets = np.zeros(len(images), np.int64)
        given = as_normalised(images, pre).astype(dtype, copy=False)
        return explainer.answer(given, targets)[LOGITS]

    return logits


def _forward(
    explainer: Explainer, path: Path, folder: Path, precision: str, threads: int | None
) -> Callable[[Array], Array]:
    """The forward pass alone, with the provider that explains: a third of an explanation's cost."""
    try:
        folder.mkdir(exist_ok=True)
        for weights in weights_beside(path):
            beside = folder / weights.resolve().relative_to(path.parent.resolve())
            beside.parent.mkdir(parents=True, exist_ok=True)
            _link(weights, beside)
        cut = write_forward(path, folder / path.name)
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror or error}") from error
    session = open_session(cut, explainer.backend.provider, threads, precision)
    pre, signature = explainer.metadata.preprocessing, explainer.backend.signature
    fixed = signature.batch

    def logits(images: Array) -> Array:
        given = as_normalised(images, pre).astype(signature.dtype, copy=False)
        size = fixed or len(given)
        parts = [given[start : start + size] for start in range(0, len(given), size)]
        rows = [
            in_floats(session.run({IMAGE: filled(part, fixed or 1)}))[LOGITS][: len(part)]
            for part in parts
        ]
        return np.concatenate(rows).astype(np.float32, copy=False)

    return logits


def _link(file: Path, beside: Path) -> None:
    """Another name of a file, or a copy where the two lie on different disks."""
    with suppress(FileExistsError):
        try:
            os.link(file, beside)
        except OSError:
            shutil.copy(file, beside)
