"""What real images show a network: the templates that a picture is aligned with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxplain.contract import IMAGE, LOGITS, Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.batches import preprocess
from onnxplain.runtime.graphs import Graph
from onnxplain.runtime.images import find_images, load_image
from onnxplain.steps import CHANNEL, MatchedLayer, importance, quantity

_SMALLEST = 0.3  # of a photograph's area that a random view shows
_BATCH = 8
_CANDIDATES = 3  # crops of which one is taken


@dataclass(frozen=True, eq=False)
class Templates:
    """What a neuron's references have in common.

    Attributes:
        sorted: of each matched layer the activations (times relevance), each channel falling,
            averaged over the references, float32 [C, P].
        importances: of each matched layer the weights of its channels, [C]; empty for a class.
        probability: of the class, averaged over the references; NaN for a channel.
    """

    sorted: tuple[NDArray[np.float32], ...]
    importances: tuple[NDArray[np.float32], ...]
    probability: float


def find_templates(
    graph: Graph,
    layers: Sequence[MatchedLayer],
    pre: Preprocessing,
    photographs: Sequence[Path],
    count: int,
    seed: int,
    *,
    target: int | None = None,
    channel: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Templates:
    """Run the references through a features graph.

    Args:
        graph: of `onnxplain.export.vital.write_features`.
        layers: its matched ones.
        photographs: files of the class, or those that excite the channel.
        count: how many views of them: each photograph as it is, then random crops in turn; of a
            class those, of three times as many, that the network is surest of.
        seed: of the crops.
        target: the class.
        channel: of an inner neuron, where the graph is one's.
        progress: called with the number of views that are done.

    Raises:
        InputError: no photographs, or one that cannot be read.
        BackendError: the runtime failed.
    """
    if not photographs:
        raise InputError("no reference images; give a folder of photographs with --references")
    totals: dict[str, NDArray[Any]] = {}
    probability, done = 0.0, 0
    shown = views(photographs, pre, count, seed)
    if target is not None:
        shown = _most_probable(graph, photographs, pre, count, seed, target)
    for batch in _batches(shown, _BATCH):
        inputs: dict[str, NDArray[Any]] = {IMAGE: batch}
        if channel is not None:
            inputs[CHANNEL] = np.full(len(batch), channel)
        outputs = graph.run(inputs)
        for i in range(len(layers)):
            falling = -np.sort(-outputs[quantity(i)], axis=-1)
            totals[quantity(i)] = totals.get(quantity(i), 0) + falling.sum(0, dtype=np.float64)
            if channel is not None:
                greatest = outputs[importance(i)].sum(0, dtype=np.float64)
                totals[importance(i)] = totals.get(importance(i), 0) + greatest
        if target is not None:
            probability += float(softmax(outputs[LOGITS])[:, target].sum())
        done += len(batch)
        progress(done)
    return Templates(
        tuple((totals[quantity(i)] / done).astype(np.float32) for i in range(len(layers))),
        tuple(
            _from_0_to_1(totals[importance(i)]).astype(np.float32)
            for i in range(len(layers))
            if channel is not None
        ),
        probability / done if target is not None else float("nan"),
    )


def views(
    photographs: Sequence[Path], pre: Preprocessing, count: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """`count` views of photographs as the network's input: all as they are, then random crops.

    A crop shows 30 to 100 % of the area, in 3:4 to 4:3, half of them mirrored.
    """
    chance = random.Random(seed)
    for i in range(count):
        photograph = load_image(photographs[i % len(photographs)])
        if i >= len(photographs):
            photograph = _random_crop(photograph, chance)
            photograph = photograph.resize((pre.resize, pre.resize), Image.Resampling.BICUBIC)
        yield preprocess(photograph, pre)


def _most_probable(
    graph: Graph,
    photographs: Sequence[Path],
    pre: Preprocessing,
    count: int,
    seed: int,
    target: int,
) -> Iterator[NDArray[np.float32]]:
    """`count` views: the photographs, and the crops that most probably show the class.

    A crop may miss what the photograph shows.
    """
    whole = min(len(photographs), count)
    crops = count - whole
    candidates = list(views(photographs, pre, whole + _CANDIDATES * crops, seed))
    yield from candidates[:whole]
    if crops:
        batches = _batches(iter(candidates[whole:]), _BATCH)
        logits = np.concatenate([graph.run({IMAGE: batch})[LOGITS] for batch in batches])
        ranking = np.argsort(-softmax(logits)[:, target], kind="stable")
        yield from (candidates[whole + i] for i in ranking[:crops])


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The probabilities of logits [N, classes]."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


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


def _batches(views: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    waiting: list[NDArray[np.float32]] = []
    for view in views:
        waiting.append(view)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _from_0_to_1(values: NDArray[Any]) -> NDArray[Any]:
    span = values.max() - values.min()
    return (values - values.min()) / (span if span > 0 else 1)


def reference_folders(
    folder: Path, neurons: Sequence[int], labels: Sequence[str]
) -> list[list[Path]]:
    """The photographs of each class: the folder's, or of the folder within it of that name.

    Raises:
        InputError: no image, or no folder for one of several classes.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder of reference images: '{folder}'")
    found = []
    for index in neurons:
        names = {str(index), labels[index].casefold() if labels else str(index)}
        own = [d for d in folder.iterdir() if d.is_dir() and d.name.casefold() in names]
        if not own and len(neurons) > 1:
            label = f" or '{labels[index]}'" if labels else ""
            raise InputError(
                f"for several classes, '{folder}' holds a folder of each: there is none named "
                f"'{index}'{label}"
            )
        found.append(find_images(own[0] if own else folder))
    return found
