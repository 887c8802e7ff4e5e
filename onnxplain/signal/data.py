"""Pictures to train on: folders, torchvision's datasets, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import preprocess
from onnxplain.runtime.inputs.images import find_images, load_image

DIGITS = "digits"
_TEST_PART = 3  # one picture of so many, where the data are not divided already
_SPLITS = (("train", "test"), ("train", "val"))
_LEAST_CROP = 0.5  # of a photograph's area, when a random square is cut out of it


class Source(Protocol):
    """Pictures by number."""

    @property
    def labels(self) -> Sequence[int]:
        """Of all pictures; empty where there are no classes."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> Image.Image:
        """Raises InputError for a picture that cannot be used."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files."""

    paths: Sequence[Path]
    labels: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, index: int) -> Image.Image:
        return load_image(self.paths[index])


@dataclass(frozen=True)
class Arrays:
    """Grey pictures, uint8 [N, H, W]."""

    pixels: NDArray[np.uint8]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@dataclass(frozen=True)
class Torchvision:
    """A dataset of torchvision's that gives (picture, class); `part` of the data, by name."""

    dataset: Any
    labels: Sequence[int]
    part: str

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"picture {index} of the {self.part} part"

    def picture(self, index: int) -> Any:
        """As the dataset gives it. Raises InputError where it cannot."""
        try:
            return self.dataset[index][0]
        except Exception as error:  # a dataset that decodes only now raises what its decoder does
            raise InputError(f"{self.name(index)} cannot be read: {error}") from error

    def read(self, index: int) -> Image.Image:
        return load_image(self.picture(index))

    def is_grey(self) -> bool:
        """By the first picture that can be read. Raises InputError where none can."""
        for index in range(len(self)):
            with suppress(InputError):
                return getattr(self.picture(index), "mode", None) == "L"
        raise InputError(f"none of the {len(self)} pictures of the {self.part} part can be read")


class Sample(NamedTuple):
    """Pixels in [0, 1], float32 [C, H, W], or a batch of them, of tensors or arrays; what they
    show; and which pictures could not be read on the way."""

    pixels: Any
    labels: Any
    unreadable: list[int]


class Pictures(Dataset[Sample]):
    """A source's pictures, cut to a square.

    An item is asked for by (epoch, index), so that what is random about it depends on nothing else,
    and an interrupted training goes on with the same pictures. A picture that cannot be read is
    replaced by the next that can; so steps keep their size, in each of several processes.

    Args:
        augment: cut a random square, and mirror half of the pictures; else the centre is taken.
    """

    def __init__(
        self, source: Source, size: int, channels: int, augment: bool = False, seed: int = 0
    ) -> None:
        self.source, self.size, self.augment, self.seed = source, size, augment, seed
        self.pre = Preprocessing(
            height=size,
            width=size,
            resize=round(size * 8 / 7) if isinstance(source, Files) else size,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, first = item
        unreadable = []
        for step in range(len(self)):
            index = (first + step) % len(self)
            try:
                pixels = self.pixels(index, epoch)
            except InputError:
                unreadable.append(index)
            else:
                label = self.source.labels[index] if len(self.source.labels) else -1
                return Sample(torch.from_numpy(pixels), label, unreadable)
        # `loader` refuses it: what a process beside it raises would come with its traceback.
        return Sample(torch.zeros(len(self.pre.mean), self.size, self.size), -1, unreadable)

    def pixels(self, index: int, epoch: int = 0) -> NDArray[np.float32]:
        """One picture, float32 [C, H, W] in [0, 1].

        Raises:
            InputError: it cannot be read.
        """
        picture = self.source.read(index)
        if self.augment:
            picture = self._random_square(picture, np.random.default_rng((self.seed, epoch, index)))
        return np.ascontiguousarray(preprocess(picture, self.pre))

    def _random_square(self, picture: Image.Image, random: np.random.Generator) -> Image.Image:
        side = min(picture.size) * np.sqrt(random.uniform(_LEAST_CROP, 1))
        left, top = (random.uniform(0, length - side) for length in picture.size)
        box = (left, top, left + side, top + side)
        target = (self.pre.resize, self.pre.resize)
        picture = picture.resize(target, Image.Resampling.BILINEAR, box)
        mirror = random.random() < 0.5
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else picture

    def chosen(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Those of the pictures that can be read: [n, C, H, W].

        Raises:
            InputError: none of them.
        """
        found = []
        for index in indices:
            with suppress(InputError):
                found.append(self.pixels(index))
        if not found:
            raise InputError("none of the pictures chosen can be read")
        return np.stack(found)

    def batches(self, size: int) -> Iterator[Sample]:
        """All in order: float32 [n, C, H, W] and int64 [n] of those that can be read, n ≤ size."""
        for first in range(0, len(self), size):
            pixels, labels, unreadable = [], [], []
            for index in range(first, min(first + size, len(self))):
                try:
                    pixels.append(self.pixels(index))
                except InputError:
                    unreadable.append(index)
                else:
                    labels.append(self.source.labels[index] if len(self.source.labels) else -1)
            none = np.empty((0, len(self.pre.mean), self.size, self.size), np.float32)
            found = np.stack(pixels) if pixels else none
            yield Sample(found, np.array(labels, np.int64), unreadable)


@dataclass(frozen=True)
class Data:
    """Pictures to train on and others to measure on. `classes` is empty where there are none."""

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
        name: a folder of class folders, or of `train` and `test` (or `val`) with class folders
            each, or of pictures without classes; `digits`, scikit-learn's 1797; or `NAME:FOLDER`,
            a dataset of torchvision's that is in the folder or can be downloaded to it:
            `CIFAR10:data`. Where it is not divided already, every third picture is for measuring.
        size: of the square pictures, in pixels.
        seed: of the random squares.

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
        f"no data {name!r}: it is neither a folder, nor {DIGITS!r}, nor DATASET:FOLDER of "
        "torchvision's"
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
            "of pictures for each of its classes, two at least"
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
        raise InputError("there must be two pictures at least, to train on and to measure on")
    return parts[0], parts[1]


def _classes(folder: Path) -> tuple[tuple[str, ...], Files]:
    """The class folders' names, sorted, and their pictures; or the pictures of a folder without."""
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
    """One part of a dataset, which has it by a flag or by one of several names."""
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
    """Without decoding pictures, where the dataset keeps them apart."""
    for attribute in ("targets", "labels", "_labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return labels
    return [label for _, label in dataset]


@dataclass(frozen=True)
class Order:
    """Which pictures each step takes: every epoch all of them, in an order of its own.

    A function of the step alone, so that training goes on in the same order from any step. The last
    step of an epoch is filled up from the epoch's first pictures.

    Attributes:
        batch: pictures of a step in one process.
        rank, world: which of how many processes.
        first, last: steps from … to before ….
    """

    length: int
    batch: int
    seed: int
    rank: int
    world: int
    first: int
    last: int

    @staticmethod
    def steps(length: int, batch: int, world: int) -> int:
        """Steps of an epoch."""
        return -(-length // (batch * world))

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        each, epoch, order = self.steps(self.length, self.batch, self.world), -1, np.empty(0)
        for step in range(self.first, self.last):
            if step // each != epoch:
                epoch = step // each
                shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.length)
                order = np.resize(shuffled, each * self.batch * self.world)
            begin = ((step % each) * self.world + self.rank) * self.batch
            yield [(epoch, int(index)) for index in order[begin : begin + self.batch]]


def loader(pictures: Pictures, order: Order, workers: int) -> Iterator[Sample]:
    """The order's batches, decoded by so many processes beside this one.

    Raises:
        InputError: none of the pictures can be read.
    """
    # PyTorch's stubs want a Sampler; any iterable of lists will do.
    batches: Any = order
    for batch in DataLoader(
        pictures, batch_sampler=batches, num_workers=workers, collate_fn=_collated, pin_memory=False
    ):
        if len(set(batch.unreadable)) == len(pictures):
            raise InputError(f"none of the {len(pictures)} pictures can be read")
        yield batch


def _collated(samples: list[Sample]) -> Sample:
    pixels: Tensor = torch.stack([sample.pixels for sample in samples])
    labels = torch.tensor([sample.labels for sample in samples])
    return Sample(pixels, labels, [index for sample in samples for index in sample.unreadable])
