"""How good pictures of classes are (VITAL, §4): who recognises them, and how natural they look."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.channels import ChannelsMetadata, mean
from onnxplain.contract.explain import IMAGE, LOGITS, Metadata
from onnxplain.errors import InputError
from onnxplain.files import scratch
from onnxplain.runtime.inputs.batches import ImageLike, as_batch, filled
from onnxplain.runtime.predictions import probabilities_of
from onnxplain.runtime.sessions import Session, open_session

_BATCH = 8
_TOP = 5


@dataclass(frozen=True)
class Seen:
    """A network's view of n images: probabilities [n, classes] and features [n, C], float64."""

    probabilities: NDArray[np.float64]
    features: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A row of the table: what one network makes of pictures of classes.

    Attributes:
        network: its name.
        pictures: how many there are.
        top1, top5: the share of pictures whose class it ranks first, or among the first five.
        probability: the probability it gives the class, averaged over the pictures.
        distance: the Fréchet distance between its features of the pictures and of the references;
            None for a single picture or reference.
    """

    network: str
    pictures: int
    top1: float
    top5: float
    probability: float
    distance: float | None


class Judge:
    """A network that looks at pictures: `read_judge` makes one.

    Attributes:
        name: the network's.
        layer: whose channels, averaged over the positions, are the features.
    """

    def __init__(self, graph: Session) -> None:
        about, own = (
            Metadata.from_props(graph.metadata),
            ChannelsMetadata.from_props(graph.metadata),
        )
        self.name, self.layer = about.source, own.layers[-1].name
        self._graph, self._about, self._batch = graph, about, own.batch
        self._features = mean(len(own.layers) - 1)

    def photographs(self, images: Sequence[ImageLike]) -> Seen:
        """What it makes of photographs, resized and cropped as the network expects.

        Raises:
            InputError: no image, or one that cannot be read.
        """
        return self._seen(images, self._about.preprocessing.resize)

    def pictures(self, images: Sequence[ImageLike]) -> Seen:
        """What it makes of pictures that fill the network's input, so that no border is cut off.

        A picture of another shape is cropped along its longer side.

        Raises:
            InputError: no picture, or one that cannot be read.
        """
        pre = self._about.preprocessing
        return self._seen(images, max(pre.height, pre.width))

    def _seen(self, images: Sequence[ImageLike], resize: int) -> Seen:
        if not images:
            raise InputError("no image given")
        parts = list(self._parts(images, resize))
        logits, features = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return Seen(probabilities_of(logits, self._about.activation), features)

    def _parts(
        self, images: Sequence[ImageLike], resize: int
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        pre = replace(self._about.preprocessing, resize=resize)
        size = self._batch or _BATCH
        for start in range(0, len(images), size):
            batch, _ = as_batch(list(images[start : start + size]), pre)
            count = len(batch)
            found = self._graph.run({IMAGE: filled(batch, self._batch or count)})
            yield (
                found[LOGITS][:count].astype(np.float64),
                found[self._features][:count].astype(np.float64),
            )


def read_judge(
    source: Any, layer: str | None = None, weights: str = "DEFAULT", provider: str = "auto"
) -> Judge:
    """A network ready to look at pictures.

    Args:
        source: as for `onnxplain.export`.
        layer: the name of the features' layer; None for the last one that VITAL matches.
        weights: for a network by name.
        provider: as for `onnxplain.runtime.sessions.open_session`.

    Raises:
        SourceError: the network cannot be read, or has no such layer.
        BackendError: the provider cannot be used.
    """
    from onnxplain.vital.graphs.channels import write_channels
    from onnxplain.vital.graphs.subject import read_subject

    subject = read_subject(source, weights=weights, layers=[] if layer is None else [layer])
    last = list(subject.layers.items())[-1]
    stack = ExitStack()
    path = stack.enter_context(scratch()) / "judge.onnx"
    write_channels(replace(subject, layers=dict([last])), path, logits=True)
    judge = Judge(open_session(path, provider))
    weakref.finalize(judge, stack.close)
    return judge


def score(
    pictures: Sequence[ImageLike],
    classes: int | Sequence[int],
    networks: Sequence[Judge],
    references: Sequence[ImageLike],
) -> list[Score]:
    """What networks make of the pictures: the network they were made for, and others (transfer).

    The networks must number their classes alike, as those for ImageNet do.

    Args:
        pictures: at the network's input size, or scaled to it. Transparent parts become white.
        classes: the class of all the pictures, or of each.
        references: photographs, for the distance.

    Raises:
        InputError: no picture or reference, or one that cannot be read; a number of classes that
            is not the number of pictures; a class that a network does not have.
    """
    given = [classes] * len(pictures) if isinstance(classes, int) else list(classes)
    if len(given) != len(pictures):
        raise InputError(f"{len(given)} classes for {len(pictures)} pictures")
    wanted = np.array(given, np.int64)
    rows = []
    for network in networks:
        seen, real = network.pictures(pictures), network.photographs(references)
        count = seen.probabilities.shape[1]
        if not ((wanted >= 0) & (wanted < count)).all():
            raise InputError(f"{network.name} has the classes 0 to {count - 1}, not all of {given}")
        own = np.take_along_axis(seen.probabilities, wanted[:, None], axis=1)
        ahead = (seen.probabilities > own).sum(axis=1)
        enough = min(len(seen.features), len(real.features)) > 1
        rows.append(
            Score(
                network.name,
                len(pictures),
                float((ahead < 1).mean()),
                float((ahead < _TOP).mean()),
                float(own.mean()),
                frechet_distance(seen.features, real.features) if enough else None,
            )
        )
    return rows


def frechet_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """d² between the normal distributions that fit two sets of features.

        d² = ‖μ_a − μ_b‖² + tr(C_a + C_b − 2 (C_a C_b)^½)

    Dowson & Landau 1982; for features of a network, Heusel et al. 2017, arXiv 1706.08500 (FID uses
    Inception's features; do not compare numbers across networks or layers). C divides by n − 1.

    With C = XᵀX, where X are the centred features over √(n − 1), the eigenvalues of C_a C_b other
    than 0 are those of M Mᵀ, M = X_a X_bᵀ; so the trace of the root is the sum of M's singular
    values. No root of a singular matrix is taken, so few samples cost no accuracy. They do cost
    meaning: the covariance of n samples has rank n − 1 at most, and the distance between two sets
    from the same distribution is above 0, the more so the fewer the samples and the more the
    features. Compare only sets of the same size, and take thousands for a figure that others can
    reproduce (Chong & Forsyth 2020, arXiv 1911.07023).

    Args:
        a, b: [n, D] and [m, D], finite; n and m at least 2.

    Raises:
        InputError: they are not.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(
            f"a distance is between features [n, D] and [m, D], n and m at least 2, not {a.shape} "
            f"and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("the features have NaN or infinite values")
    between = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _root(a), _root(b)
    singular = np.linalg.svd(root_a @ root_b.T, compute_uv=False)
    squared = between @ between + (root_a**2).sum() + (root_b**2).sum() - 2 * singular.sum()
    return max(float(squared), 0.0)  # rounding


def _root(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """R such that RᵀR is the covariance, with no more rows than there are features."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    upper: Any = np.linalg.qr(centred, mode="r")
    return upper
