"""An evaluation: every metric of every image's explanation by every graph."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from onnxplain.errors import InputError
from onnxplain.evaluation.images import Sample, listed, mask_of, pixels_of
from onnxplain.evaluation.metrics import MASKED, MOSAIC, Metric
from onnxplain.evaluation.page import write_page
from onnxplain.evaluation.protocols import SEMANTIC_PULLBACKS, metrics_of, protocol_of
from onnxplain.evaluation.result import Evaluation
from onnxplain.evaluation.scoring import Explained, ScoreError, Tiles, score
from onnxplain.evaluation.store import PAGE, Score, Store
from onnxplain.evaluation.subject import Logits, Subject, opened
from onnxplain.files import scratch
from onnxplain.runtime import find_images
from onnxplain.runtime.pictures.figures import Row

QUICK = 10
"""The images of a quick evaluation."""

Graphs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Images = Graphs


def evaluate(
    graphs: Graphs,
    images: Images,
    *,
    labels: Mapping[str, str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str = SEMANTIC_PULLBACKS.name,
    out: str | os.PathLike[str] | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    provider: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Evaluation:
    """Measure explain graphs of classifiers on the same images.

    Scores depend on nothing but graph, image, class and seed: not on the order, on other images
    (but for mosaics, which are made of them), or on where an earlier run was interrupted.

    Args:
        graphs: explain graphs, one or several: methods, temperatures, precisions.
        images: files, folders and glob patterns.
        labels: each image's class, an index or a name, by the last parts of its path; of others
            it is the class that the first graph predicts.
        masks: a folder of images called as these, but for the suffix, light where the thing of the
            class is: for the metrics that ask where an explanation lies.
        metrics: by name (`onnxplain.evaluation.METRICS`); None for the protocol's.
        protocol: one of `onnxplain.evaluation.PROTOCOLS`.
        out: a folder for the scores, where a run with the same arguments goes on; None for none.
        count: so many images, drawn by the seed; None for as many as the protocol asks for.
        quick: ten images, and no metric that takes long, unless other ones are asked for.
        seed: None for the protocol's.
        provider, precision, threads: as for `onnxplain.load`.
        progress: called with how many of all scores are there.

    Raises:
        InputError: a graph, image, label or name that cannot be used; `out` cannot be written.
        BackendError: a graph cannot be opened or run.
        ModuleNotFoundError: Quantus or PyArrow is not installed.
    """
    chosen = protocol_of(protocol)
    asked = metrics_of(None if metrics is None else list(metrics), chosen, quick)
    seed = chosen.seed if seed is None else seed
    count = count or (QUICK if quick else chosen.count)
    paths = find_images(images)
    files = [Path(graph) for graph in _several(graphs)]
    store = Store(None if out is None else Path(out))
    earlier = 0
    with scratch() as folder:
        forwards: dict[str, Logits] = {}
        subjects = [
            opened(file, name, folder, provider, precision, threads, forwards)
            for file, name in zip(files, _names(files), strict=True)
        ]
        _check_alike(subjects)
        of_masks = None if masks is None else Path(masks)
        samples = listed(paths, labels or {}, subjects[0], count, seed, of_masks)
        scores: list[Score] = []
        total = len(samples) * len(subjects) * len(asked)
        try:
            for cell in _cells(subjects, samples, asked, seed):
                known = store.known.get(cell.digest)
                earlier += known is not None
                if known is None:
                    known = cell.score()
                    store.add(known)
                scores.append(known)
                progress(len(scores), total)
        except BaseException:
            store.save()
            raise
        evaluation = Evaluation(
            tuple(subject.name for subject in subjects),
            asked,
            tuple(sample.name for sample in samples),
            tuple(scores),
            seed,
            earlier,
        )
        store.finish(evaluation.scores, evaluation.to_json())
        if store.folder is not None:
            write_page(evaluation, _drawn(subjects, samples), store.folder / PAGE)
    return evaluation


def _check_alike(subjects: Sequence[Subject]) -> None:
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


def _drawn(subjects: Sequence[Subject], samples: Sequence[Sample]) -> Callable[[int, int], Row]:
    """What pictures of a graph and an image are drawn from."""

    def row(graph: int, image: int) -> Row:
        sample = samples[image]
        return subjects[graph].explainer(sample.path, sample.target).rows()[0]

    return row


@dataclass(frozen=True)
class _Cell:
    """One score to be made."""

    metric: Metric
    sample: Sample
    subject: Subject
    explained: Callable[[], Explained]
    tiles: Callable[[], Tiles | None]
    seed: int
    digest: str

    def score(self) -> Score:
        found, error = None, self.sample.problem
        if not error:
            try:
                found = score(self.metric, self.explained(), self.tiles(), self.seed)
            except ScoreError as reason:
                error = str(reason)
        metadata = self.subject.explainer.metadata
        return Score(
            self.digest,
            self.subject.name,
            metadata.described_method,
            self.sample.name,
            self.sample.target,
            self.metric.name,
            found,
            error,
        )


def _cells(
    subjects: Sequence[Subject], samples: Sequence[Sample], metrics: Sequence[Metric], seed: int
) -> Iterator[_Cell]:
    """Image by image, so that what is interrupted has the same images of all graphs."""
    pixels = lru_cache(maxsize=8)(pixels_of)
    for sample in samples:
        others = partners(sample, samples, seed)
        for subject in subjects:
            pre = subject.preprocessing

            @lru_cache(maxsize=1)
            def explained(subject: Subject = subject, sample: Sample = sample) -> Explained:
                pre, mask = subject.preprocessing, sample.mask
                seen = None if mask is None else partial(mask_of, mask, sample.path, pre)
                return Explained(subject, pixels(sample.path, pre), sample.target, seen)

            @lru_cache(maxsize=1)
            def tiles(
                subject: Subject = subject, others: Sequence[Sample] = others
            ) -> Tiles | None:
                if not others:
                    return None
                images = [pixels(other.path, subject.preprocessing) for other in others]
                return Tiles(np.concatenate(images), [other.target for other in others])

            for metric in metrics:
                of = {
                    "graph": subject.digest,
                    "name": subject.name,
                    "image": [sample.name, sample.digest, sample.problem],
                    "target": sample.target,
                    "metric": metric.described(pre.height, pre.width),
                    "mosaic": [[o.digest, o.target] for o in others if metric.on == MOSAIC],
                    "mask": sample.mask_digest if metric.on == MASKED else "",
                    "seed": seed,
                }
                digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
                draws = drawn(seed, sample.digest, metric.name)
                yield _Cell(metric, sample, subject, explained, tiles, draws, digest)


def drawn(seed: int, digest: str, what: str) -> int:
    """The seed of what is drawn for one image, below 2³²: the same for every graph, so that
    comparisons are paired, and whatever was drawn before."""
    return int.from_bytes(hashlib.sha256(f"{seed} {digest} {what}".encode()).digest()[:4], "big")


def partners(sample: Sample, samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The image, another of its class (itself, where it is the only one), and two of others."""
    usable = [other for other in samples if not other.problem]
    same = [o for o in usable if o.target == sample.target and o.name != sample.name]
    others = [o for o in usable if o.target != sample.target]
    if sample.problem or not others:
        return []
    random = np.random.default_rng(drawn(seed, sample.digest, "partners"))
    beside = same[int(random.integers(len(same)))] if same else sample
    two = random.choice(len(others), 2, replace=len(others) < 2)
    return [sample, beside, *(others[i] for i in two.tolist())]


def _several(graphs: Graphs) -> Sequence[str | os.PathLike[str]]:
    several = [graphs] if isinstance(graphs, (str, os.PathLike)) else list(graphs)
    if not several:
        raise InputError("no explain graph given")
    return several


def _names(files: Sequence[Path]) -> list[str]:
    """Short, each once: the file's name, or as much of its path as tells it from the others."""
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("an explain graph is given twice")
    parts = [Path(os.path.abspath(file)).parts for file in files]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [name.removesuffix(".onnx").removesuffix(".explain") for name in names]
