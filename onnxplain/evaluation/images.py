"""The images of an evaluation: which there are, what they show, and how they become pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.evaluation.subject import Subject, as_pixels
from onnxplain.reading import sha256
from onnxplain.runtime.inputs.batches import as_batch, as_photograph
from onnxplain.runtime.inputs.images import find_images, load_image
from onnxplain.runtime.inputs.targets import as_indices

_T = TypeVar("_T")


@dataclass(frozen=True)
class Sample:
    """An image file.

    Attributes:
        name: as tables call it: its path, from the folder that all of them share.
        digest: of its bytes; empty where it cannot be read.
        target: the class that is explained; -1 where the image cannot be used.
        problem: why it cannot be; else empty.
        mask: the file of what it shows; None where there is none.
        mask_digest: of that file's bytes.
    """

    path: Path
    name: str
    digest: str
    target: int
    problem: str = ""
    mask: Path | None = None
    mask_digest: str = ""


def listed(
    paths: Sequence[Path],
    labels: Mapping[str, str],
    first: Subject,
    count: int | None,
    seed: int,
    masks: Path | None = None,
) -> list[Sample]:
    """The images of an evaluation, by name, each with its class.

    Args:
        labels: the class, an index or a name, by the path's last parts; of an image without one it
            is the class that is predicted.
        first: predicts, and has the names of classes.
        count: so many at most, drawn by the seed.
        masks: a folder of images with the same names, but for the suffix, light where the thing is.

    Raises:
        InputError: a label that is no class of the network's; labels of other images alone.
    """
    places = [_place(path) for path in paths]
    common = Path(os.path.commonpath([place.parent for place in places]))
    names = [place.relative_to(common).as_posix() for place in places]
    targets = labels_of(paths, labels, first.explainer.labels)
    order = list(range(len(paths)))
    if count is not None and count < len(paths):
        chosen = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        order = sorted(chosen.tolist())
    of_mask = {} if masks is None else _by_tails(masks)
    return [
        _sample(paths[i], names[i], targets[i], first, _of_tail(places[i].with_suffix(""), of_mask))
        for i in order
    ]


def pixels_of(path: Path, pre: Preprocessing) -> NDArray[np.float32]:
    """The image as a network sees it, [1,C,H,W] in [-1, 1].

    Raises:
        InputError: it cannot be read.
    """
    return as_pixels(as_batch(path, pre)[0], pre)


def mask_of(path: Path, image: Path, pre: Preprocessing) -> NDArray[np.bool_]:
    """Where a network sees the thing, [1,1,H,W]: an image's mask, cut as the image is.

    Raises:
        InputError: one of them cannot be read; the mask has other proportions than the image, or
            nothing light where the network sees it.
    """
    mask, (width, height) = load_image(path), load_image(image).size
    if abs(mask.width * height - mask.height * width) > max(width, height):  # by rounding at most
        raise InputError(
            f"the mask '{path}' is of {mask.width} × {mask.height} pixels, and its image of "
            f"{width} × {height}: they lie on each other where their proportions are the same"
        )
    light = np.asarray(as_photograph(mask, pre).convert("L")) > 127
    if not light.any():
        raise InputError(
            f"the mask '{path}' is dark wherever the network sees it: the thing is what is light, "
            "above 127 of 255"
        )
    return light[None, None]


def labels_of(
    paths: Sequence[Path], labels: Mapping[str, str], names: Sequence[str]
) -> list[int | str | None]:
    """Each file's label, by the last parts of its path, as many as there are labels for; None where
    there is none.

    Args:
        names: of the classes, of which a number may be one; another number is an index.

    Raises:
        InputError: there are labels, and none is of a file.
    """
    found = [_of_tail(_place(path), labels) for path in paths]
    if labels and not any(found):
        raise InputError(
            f"no image has a label: there is one of {next(iter(labels))!r}, and an image "
            f"'{paths[0]}'"
        )
    return [
        int(label) if label and label.isdecimal() and label not in names else label
        for label in found
    ]


def _place(path: Path) -> Path:
    """Where a file is, by the names that it was given by: a link's own, not that of its target."""
    return Path(os.path.abspath(path))


def _tails(path: Path) -> list[str]:
    """Its last parts, the most first."""
    return [str(Path(*path.parts[-n:])) for n in range(len(path.parts), 0, -1)]


def _of_tail(path: Path, known: Mapping[str, _T]) -> _T | None:
    return next((known[tail] for tail in _tails(path) if tail in known), None)


def _by_tails(folder: Path) -> dict[str, Path]:
    """A folder's images by the last parts of their paths, but for the suffix: each by those that
    are of no other, and by its path from the folder."""
    found = {mask: mask.relative_to(folder).with_suffix("") for mask in find_images(folder)}
    count = Counter(tail for path in found.values() for tail in _tails(path))
    whole = {str(path): mask for mask, path in found.items()}
    return whole | {
        tail: mask for mask, path in found.items() for tail in _tails(path) if count[tail] == 1
    }


def _sample(
    path: Path, name: str, label: int | str | None, first: Subject, mask: Path | None
) -> Sample:
    target = -1
    if label is not None:
        target = int(as_indices(label, 1, first.classes, first.explainer.labels, False)[0])
    try:
        digest = sha256(path)
        of_mask = "" if mask is None else sha256(mask)
        pixels = pixels_of(path, first.preprocessing)
    except (InputError, OSError) as error:
        return Sample(path, name, "", -1, str(error))
    if label is None:
        target = int(first.logits(pixels).argmax())
    return Sample(path, name, digest, target, mask=mask, mask_digest=of_mask)
