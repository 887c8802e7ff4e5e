"""What is evaluated: a file's explanations and its network, asked in pixels of [-1, 1]."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxplain.adapters.network import check_classifier
from onnxplain.contract.explain import DIRECTION, IMAGE, LOGITS, Preprocessing
from onnxplain.contract.pixels import Pixels
from onnxplain.errors import InputError
from onnxplain.evaluation.deferred import Deferred, Remembered, Together
from onnxplain.evaluation.randomised import write_shuffled
from onnxplain.reading import sha256
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.loading import digest_of
from onnxplain.runtime.onnx_file import weights_beside
from onnxplain.runtime.outputs import in_floats
from onnxplain.runtime.predictions import probabilities_of
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX

Array = NDArray[Any]

Logits = Callable[[Array], Array]
"""Of images, float32 [N,C,H,W] in [-1, 1], to [N, classes]."""

_TOGETHER = 64  # images run at once, at most
_REMEMBERED = 1024  # images whose logits are kept


@dataclass(frozen=True)
class Subject:
    """A classifier's explain graph, whose images are pixels in [-1, 1], float32 [N,C,H,W].

    Attributes:
        name: as tables call it.
        digest: of what its answers are of: the file, its weights, the provider and the precision.
        explainer: the file, opened.
        logits: of images, [N, classes]: the forward pass alone, where it can be cut out.
        classes: how many there are.
        randomised: gives the same file with its layers' weights shuffled, opened once; or raises
            InputError, which is remembered too.
    """

    name: str
    digest: str
    explainer: Explainer
    logits: Logits
    classes: int
    randomised: Callable[[], Subject]

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


def check_alike(subjects: Sequence[Subject]) -> None:
    """
    Raises:
        InputError: a class's index is not the same class of all.
    """
    first, *others = subjects
    for other in others:
        if other.classes != first.classes:
            raise InputError(
                f"{first.name} has {first.classes} classes, and {other.name} {other.classes}: "
                "graphs of one classifier are compared"
            )
        named = first.explainer.labels, other.explainer.labels
        if all(named) and named[0] != named[1]:
            raise InputError(
                f"the classes of {first.name} and {other.name} are not called alike, or are in "
                "another order: graphs of one classifier are compared"
            )


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
    path: Path,
    name: str,
    folder: Path,
    provider: str,
    precision: str,
    threads: int | None,
    forwards: dict[str, Logits],
) -> Subject:
    """A file to be evaluated.

    Args:
        folder: for what is cut out of it, kept as long as the subject.
        provider, precision, threads: as for `onnxplain.load`.
        forwards: the forward passes of the subjects before; explanations of one network share
            theirs, and what it answered.

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
    digest = hashlib.sha256(json.dumps([digest_of(path), chosen]).encode()).hexdigest()
    if path.suffix == SUFFIX:
        logits = _of_explainer(explainer)
    else:
        model = forward_proto(path)
        network = _network(model, path, metadata.preprocessing, chosen)
        if network not in forwards:
            cut = _saved(model, path, folder / digest)
            forwards[network] = Remembered(_forward(explainer, cut, threads), _REMEMBERED)
        logits = forwards[network]
    example = np.zeros((1, *metadata.preprocessing.shape(metadata.preprocessing.channels)))
    classes = logits(as_pixels(example, metadata.preprocessing)).shape[1]

    @cache
    def shuffled() -> Subject | InputError:
        if path.suffix == SUFFIX:
            return InputError("an engine's weights cannot be shuffled: give the explain graph")
        try:
            written = write_shuffled(path, folder / f"{digest}-shuffled")
        except InputError as refusal:
            return refusal
        settings = backend.provider, backend.precision, threads
        return opened(written, name, folder, *settings, forwards)

    def randomised() -> Subject:
        found = shuffled()
        if isinstance(found, InputError):
            raise found.with_traceback(None)
        return found

    return Subject(name, digest, explainer, logits, classes, randomised)


def _of_explainer(explainer: Explainer) -> Logits:
    pre, dtype = explainer.metadata.preprocessing, explainer.backend.signature.dtype

    def logits(images: Array) -> Array:
        targets = np.zeros(len(images), np.int64)
        given = as_normalised(images, pre).astype(dtype, copy=False)
        return explainer.answer(given, targets)[LOGITS]

    return logits


def _saved(forward: onnx.ModelProto, path: Path, folder: Path) -> Path:
    """A file's forward pass, a third of an explanation's cost, as one in `folder`."""
    try:
        folder.mkdir(exist_ok=True)
        for weights in weights_beside(path):
            beside = folder / weights.resolve().relative_to(path.parent.resolve())
            beside.parent.mkdir(parents=True, exist_ok=True)
            _link(weights, beside)
        onnx.save(forward, folder / path.name)
        return folder / path.name
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror or error}") from error


def _network(
    forward: onnx.ModelProto, path: Path, pre: Preprocessing, chosen: Mapping[str, str]
) -> str:
    """A digest of what a file's forward pass answers, whatever method the file explains by."""
    content = hashlib.sha256()
    for part in (forward.graph, *forward.opset_import, *forward.functions):
        content.update(part.SerializeToString(deterministic=True))
    of = [content.hexdigest(), *map(sha256, weights_beside(path)), asdict(pre), chosen]
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def _forward(explainer: Explainer, cut: Path, threads: int | None) -> Logits:
    """The network, run by the provider that explains."""
    backend = explainer.backend
    session = open_session(cut, backend.provider, threads, backend.precision)
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
