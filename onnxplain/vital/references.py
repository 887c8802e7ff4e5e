"""How a network responds to real images: the templates that a picture is aligned with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.steps import MatchedLayer, importance, quantity
from onnxplain.errors import InputError
from onnxplain.reading import opened
from onnxplain.runtime.inputs.batches import preprocess
from onnxplain.runtime.inputs.images import SUFFIXES, find_images, load_image, recognised
from onnxplain.runtime.sessions import Session
from onnxplain.vital.features import Features, fitting

_SMALLEST = 0.3  # share of a photograph's area in a random crop
_CANDIDATES = 3  # crops for each one that is taken
_NAMED = 5  # folders named in a message
_COLOURS = 3


@dataclass(frozen=True, eq=False)
class Templates:
    """What a neuron's references have in common.

    Attributes:
        sorted: for each matched layer, the activations (times relevance) of each channel in
            descending order, averaged over the references, float32 [C, P].
        importances: for each matched layer, the weights of its channels, [C]; empty for a class.
        probability: the class's, averaged over the references; NaN for a channel.
    """

    sorted: tuple[NDArray[np.float32], ...]
    importances: tuple[NDArray[np.float32], ...]
    probability: float


def find_templates(
    graph: Session,
    layers: Sequence[MatchedLayer],
    pre: Preprocessing,
    photographs: Sequence[Path],
    count: int,
    seed: int,
    *,
    target: int | None = None,
    channel: int | None = None,
    progress: Callable[[int, int], None] = lambda done, views: None,
) -> Templates:
    """Run the references through a features graph.

    Args:
        graph: a features graph, by `onnxplain.vital.graphs.features.write_features`.
        layers: its matched layers.
        photographs: files that show the class, or that excite the channel.
        count: how many views to take: each photograph as it is, then random crops of each in turn;
            for a class, three times as many crops are tried, and those kept that the network is
            surest of.
        seed: for the crops.
        target: the class.
        channel: of the inner neuron, if the graph was written for one.
        progress: called with the number of views run, and how many there are.

    Raises:
        InputError: no photographs, or one that cannot be read.
        BackendError: the runtime failed.
    """
    if not photographs:
        raise InputError("no reference images; give a folder of photographs with references=")
    features = Features(graph)
    taken: Sequence[int] = range(count)
    run, all_ = 0, count
    if target is not None and count > len(photographs):
        crops = range(len(photographs), len(photographs) + _CANDIDATES * (count - len(photographs)))
        all_ += len(crops)
        shares = []
        for outputs in features.runs(views(photographs, pre, crops, seed)):
            shares.append(features.probabilities(outputs)[:, target])
            run += len(shares[-1])
            progress(run, all_)
        # A crop may miss what the photograph shows.
        ranking = np.argsort(-np.concatenate(shares), kind="stable")
        in_order = [i for _, own in _of_each(photographs, crops) for i in own]
        surest = [in_order[place] for place in ranking[: count - len(photographs)]]
        taken = [*range(len(photographs)), *surest]
    totals: dict[str, NDArray[Any]] = {}
    probability = 0.0
    for outputs in features.runs(views(photographs, pre, taken, seed), channel):
        for i in range(len(layers)):
            falling = -np.sort(-outputs[quantity(i)], axis=-1)
            totals[quantity(i)] = totals.get(quantity(i), 0) + falling.sum(0, dtype=np.float64)
            if channel is not None:
                weights = outputs[importance(i)].sum(0, dtype=np.float64)
                totals[importance(i)] = totals.get(importance(i), 0) + weights
        if target is not None:
            probability += float(features.probabilities(outputs)[:, target].sum())
        run += len(falling)
        progress(run, all_)
    return Templates(
        tuple((totals[quantity(i)] / count).astype(np.float32) for i in range(len(layers))),
        tuple(
            (totals[importance(i)] / count).astype(np.float32)
            for i in range(len(layers))
            if channel is not None
        ),
        probability / count if target is not None else float("nan"),
    )


def some_of(photographs: Iterable[Path], count: int, seed: int) -> list[Path]:
    """A random `count` of the files, in their order; of those in colour, unless none is."""
    files = list(photographs)
    shuffled = random.Random(seed).sample(files, len(files))
    taken = set(islice(filter(_has_three_colours, shuffled), count)) or set(shuffled[:count])
    return [file for file in files if file in taken]


def in_colour(photographs: Sequence[Path]) -> list[Path]:
    """Those of three colours, or all if none is: VITAL takes no grey or transparent picture."""
    return list(filter(_has_three_colours, photographs)) or list(photographs)


def _has_three_colours(file: Path) -> bool:
    """Whether it is stored so; a file that cannot be read is taken, for its message."""
    try:
        with opened(file) as regular, recognised(regular) as image:
            return len(image.getbands()) == _COLOURS
    except (OSError, ValueError):
        return True


def views(
    photographs: Sequence[Path], pre: Preprocessing, numbers: Iterable[int], seed: int
) -> Iterator[NDArray[np.float32]]:
    """Views of photographs, by their numbers, as the network's input. Each file is decoded once.

    With n photographs, the first n views are the photographs as the network sees them. Any other
    view i is a random crop of photograph i modulo n, always the same one: 30 to 100 % of its area,
    with sides from 3:4 to 4:3, half of the crops mirrored, resized to fill the network's input.
    Views of the same photograph follow one another.
    """
    for photograph, wanted in _of_each(photographs, numbers):
        picture = load_image(photograph)
        for i in wanted:
            if i < len(photographs):
                yield preprocess(picture, pre)
            else:
                crop = _random_crop(picture, random.Random(f"{seed} {i}"))
                crop = crop.resize((pre.width, pre.height), Image.Resampling.BICUBIC)
                yield preprocess(crop, fitting(pre))


def _of_each(
    photographs: Sequence[Path], numbers: Iterable[int]
) -> Iterable[tuple[Path, Sequence[int]]]:
    """The photographs that are needed, each with the numbers of its views."""
    shown: dict[int, list[int]] = {}
    for i in numbers:
        shown.setdefault(i % len(photographs), []).append(i)
    return [(photographs[which], own) for which, own in sorted(shown.items())]


def _random_crop(photograph: Image.Image, chance: random.Random) -> Image.Image:
    area = photograph.width * photograph.height * chance.uniform(_SMALLEST, 1)
    ratio = np.exp(chance.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(round((area * ratio) ** 0.5), photograph.width)
    height = min(round((area / ratio) ** 0.5), photograph.height)
    left, top = (
        chance.randint(0, whole - part)
        for whole, part in ((photograph.width, width), (photograph.height, height))
    )
    crop = photograph.crop((left, top, left + width, top + height))
    return ImageOps.mirror(crop) if chance.random() < 0.5 else crop


def check_folder(folder: Path) -> None:
    """
    Raises:
        InputError: there is no folder.
    """
    if not folder.is_dir():
        what = "is a file; name its folder" if folder.is_file() else "is no folder"
        raise InputError(f"the reference images' '{folder}' {what}")


def reference_folders(
    folder: Path, neurons: Sequence[int], labels: Sequence[str]
) -> list[list[Path]]:
    """The photographs of each class: those in folders of its index or name, or all of `folder`.

    Raises:
        InputError: no image; no folder for one of several classes, or none for a class although
            all photographs are in folders.
    """
    check_folder(folder)
    entries = sorted(folder.iterdir())
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    loose = any(entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in entries)
    found = []
    for index in neurons:
        names = {str(index), labels[index].casefold() if labels else str(index)}
        own = [entry for entry in folders if entry.name.casefold() in names]
        if not own and (len(neurons) > 1 or (folders and not loose)):
            label = f" or '{labels[index]}'" if labels else ""
            there = ", ".join(f"'{entry.name}'" for entry in folders[:_NAMED]) or "no folder"
            more = ", …" if len(folders) > _NAMED else ""
            raise InputError(
                f"of the folders in '{folder}' ({there}{more}), none is named '{index}'{label}; "
                "rename one, or give the folder of the class itself"
            )
        found.append(find_images(own or folder))
    return found
