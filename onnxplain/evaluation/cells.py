"""An evaluation's scores, one by one: each of a graph, an image and a metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from onnxplain.evaluation.images import Sample, mask_of, pixels_of
from onnxplain.evaluation.metrics import MASKED, MOSAIC, Metric
from onnxplain.evaluation.scoring import Explained, ScoreError, Tiles, score
from onnxplain.evaluation.store import Score
from onnxplain.evaluation.subject import Subject


@dataclass(frozen=True)
class Cell:
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


def cells(
    subjects: Sequence[Subject], samples: Sequence[Sample], metrics: Sequence[Metric], seed: int
) -> Iterator[Cell]:
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
                yield Cell(metric, sample, subject, explained, tiles, draws, digest)


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
