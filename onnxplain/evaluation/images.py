"""The images of an evaluation: which there are, what they show, and how they become pixels."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.evaluation.subject import Subject, as_pixels
from onnxplain.reading import opened
from onnxplain.runtime.inputs.batches import as_batch, as_photograph
from onnxplain.runtime.inputs.images import find_images, load_image
from onnxplain.runtime.inputs.targets import as_indices


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
        InputError: a label that is no class of the network's.
    """
    common = _common(paths)
    names = [path.resolve().relative_to(common).as_posix() for path in paths]
    order = list(range(len(paths)))
    if count is not None and count < len(paths):
        chosen = np.random.default_rng(seed).choice(len(paths), count, replace=False)
        order = sorted(chosen.tolist())
    of_name = {mask.stem: mask for mask in find_images(masks)} if masks is not None else {}
    return [_sample(paths[i], names[i], labels, first, of_name.get(paths[i].stem)) for i in order]


def pixels_of(path: Path, pre: Preprocessing) -> NDArray[np.float32]:
    """The image as a network sees it, [1,C,H,W] in [-1, 1].

    Raises:
        InputError: it cannot be read.
    """
    return as_pixels(as_batch(path, pre)[0], pre)


def mask_of(path: Path, pre: Preprocessing) -> NDArray[np.bool_]:
    """Where a network sees the thing, [1,1,H,W]: an image's mask, cut as the image is.

    Raises:
        InputError: it cannot be read.
    """
    light = np.asarray(as_photograph(load_image(path), pre).convert("L")) > 127
    return light[None, None]


def read_labels(path: Path) -> dict[str, str]:
    """The labels of a CSV file: a path, or its last parts, and a class's index or name a line.

    A first line `image,label` is passed over.

    Raises:
        InputError: it cannot be read, or a line has not two fields.
    """
    try:
        with opened(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"labels='{path}' is no text in UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read labels='{path}': {error.strerror or error}") from error
    labels = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        fields = [field.strip() for field in row]
        if not any(fields) or (number == 1 and fields == ["image", "label"]):
            continue
        if len(fields) != 2 or not all(fields):
            raise InputError(
                f"labels='{path}', line {number}: an image's path and its class are asked for, "
                "separated by a comma"
            )
        labels[str(Path(fields[0]))] = fields[1]
    return labels


def label_of(path: Path, labels: Mapping[str, str]) -> str | None:
    """A file's label, by the last parts of its path, as many as there are labels for."""
    parts = path.resolve().parts
    tails = (str(Path(*parts[-n:])) for n in range(len(parts), 0, -1))
    return next((labels[tail] for tail in tails if tail in labels), None)


def _common(paths: Sequence[Path]) -> Path:
    folders = [path.resolve().parent for path in paths]
    common = folders[0]
    while not all(folder.is_relative_to(common) for folder in folders):
        common = common.parent
    return common


def _sample(
    path: Path, name: str, labels: Mapping[str, str], first: Subject, mask: Path | None
) -> Sample:
    label, target = label_of(path, labels), None
    if label is not None:
        named: int | str = int(label) if label.isdecimal() else label
        target = int(as_indices(named, 1, first.classes, first.explainer.labels, False)[0])
    try:
        digest = _digest(path)
        of_mask = "" if mask is None else _digest(mask)
        pixels = pixels_of(path, first.preprocessing)
    except (InputError, OSError) as error:
        return Sample(path, name, "", -1, str(error))
    if target is None:
        target = int(first.logits(pixels).argmax())
    return Sample(path, name, digest, target, mask=mask, mask_digest=of_mask)


def _digest(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
