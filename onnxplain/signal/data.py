"""Data by name: folders, torchvision's datasets, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import InputError
from onnxplain.runtime.inputs.images import find_images
from onnxplain.signal.pictures import Pictures
from onnxplain.signal.sources import Arrays, Files, Torchvision

DIGITS = "digits"
_TEST_PART = 3  # every third picture, where the data are not divided already
_SPLITS = (("train", "test"), ("train", "val"))


@dataclass(frozen=True)
class Data:
    """Pictures to train on and others to measure on. `classes` is empty if there are none."""

    train: Pictures
    test: Pictures
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        return self.train.pre.channels

    @property
    def size(self) -> int:
        return self.train.size


def open_data(name: str, size: int, seed: int = 0) -> Data:
    """Find data by name.

    Args:
        name: a folder that holds class folders, or `train` and `test` (or `val`) with class folders
            each, or pictures without classes; `digits`, scikit-learn's 1797; or `NAME:FOLDER`, a
            torchvision dataset that is in the folder or can be downloaded to it: `CIFAR10:data`. If
            the data are not divided already, every third picture is for measuring.
        size: width and height of the pictures, in pixels.
        seed: for the random crops.

    Raises:
        InputError: no such data; a class folder without a picture.
    """
    if name == DIGITS:
        return _digits(size)
    if Path(name).is_dir():
        return _folder(Path(name), size, seed)
    if ":" in name:
        return _torchvision(name, size)
    raise InputError(
        f"no data {name!r}: it is not a folder, not {DIGITS!r}, and not DATASET:FOLDER for a "
        "torchvision dataset"
    )


def require_classes(data: Data, name: str) -> None:
    """Check that there is something to classify.

    Raises:
        InputError: fewer than two classes.
    """
    if len(data.classes) < 2:
        found = f"one class, {data.classes[0]!r}" if data.classes else "pictures without classes"
        raise InputError(
            f"'{name}' has {found}; to work with a classifier, give a folder that has one folder "
            "of pictures for each of its classes, at least two"
        )


def _digits(size: int) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(grey)) % _TEST_PART == 0
    halves = [Arrays(grey[part], digits.target[part].tolist()) for part in (~test, test)]
    train, held = (Pictures(half, size, channels=1) for half in halves)
    return Data(train, held, tuple(map(str, digits.target_names)))


def _folder(folder: Path, size: int, seed: int) -> Data:
    for names in _SPLITS:
        train, test = (folder / name for name in names)
        if train.is_dir() and test.is_dir():
            classes, files = _classes(train)
            others, held = _classes(test)
            if classes != others:
                raise InputError(
                    f"'{train}' and '{test}' have different classes: "
                    f"{', '.join(sorted(set(classes) ^ set(others)))}"
                )
            break
    else:
        classes, found = _classes(folder)
        files, held = _divided(found)
    return Data(Pictures(files, size, 3, augment=True, seed=seed), Pictures(held, size, 3), classes)


def _divided(files: Files) -> tuple[Files, Files]:
    parts = []
    for test in (False, True):
        chosen = [i for i in range(len(files)) if (i % _TEST_PART == 0) == test]
        labels = [files.labels[i] for i in chosen] if files.labels else ()
        parts.append(Files([files.paths[i] for i in chosen], labels))
    if not len(parts[0]):
        raise InputError("there must be at least two pictures, to train on and to measure on")
    return parts[0], parts[1]


def _classes(folder: Path) -> tuple[tuple[str, ...], Files]:
    """The class folders' sorted names and their pictures; or the pictures of a folder without."""
    names = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not names:
        return (), Files(find_images(folder))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        try:
            found = find_images(folder / name)
        except InputError:
            raise InputError(
                f"the class folder '{folder / name}' has no picture: add some, or remove it"
            ) from None
        paths += found
        labels += [label] * len(found)
    return tuple(names), Files(paths, labels)


def _torchvision(name: str, size: int) -> Data:
    from torchvision import datasets

    kind, _, root = name.partition(":")
    if not isinstance(found := getattr(datasets, kind, None), type):
        raise InputError(f"torchvision has no dataset {kind!r}")
    parts = []
    for train, splits in ((True, ("train", "trainval")), (False, ("test", "val"))):
        try:
            part = _part(found, root, train, splits)
            labels = [int(label) for label in _labels(part)]
        except Exception as error:  # downloads and archives fail in many ways
            raise InputError(f"torchvision cannot open {kind} in '{root}': {error}") from error
        parts.append(Torchvision(part, labels, splits[0]))
    channels = 1 if parts[0].is_grey() else 3
    classes = getattr(parts[0].dataset, "classes", None) or sorted(set(parts[0].labels))
    train_, test = (Pictures(part, size, channels) for part in parts)
    return Data(train_, test, tuple(map(str, classes)))


def _part(found: Any, root: str, train: bool, splits: Sequence[str]) -> Any:
    """One part of a dataset, which is chosen by a flag or by one of several names."""
    refused: Exception | None = None
    ways: list[dict[str, Any]] = [{"train": train}, *({"split": name} for name in splits)]
    for wanted in ways:
        for more in ({"download": True}, {}):
            try:
                return found(root, **wanted, **more)
            except (TypeError, ValueError) as error:  # no such argument, or no such split
                refused = error
    assert refused is not None
    raise refused


def _labels(dataset: Any) -> Any:
    """The labels, without decoding pictures if the dataset keeps them separately."""
    for attribute in ("targets", "labels", "_labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return labels
    return [label for _, label in dataset]
