"""What an evaluation found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.evaluation.metrics import HIGHER, Metric
from onnxplain.evaluation.statistics import Estimate, differences, estimates
from onnxplain.evaluation.store import Score
from onnxplain.version import __version__


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        graphs: as they are called, in the order given.
        metrics: in the order asked for.
        images: by name, sorted.
        scores: of each image by each graph and metric, in that order.
        seed: of all draws.
        earlier: how many of them an earlier run had computed.
    """

    graphs: tuple[str, ...]
    metrics: tuple[Metric, ...]
    images: tuple[str, ...]
    scores: tuple[Score, ...]
    seed: int
    earlier: int = 0

    def of(self, metric: str) -> NDArray[np.float64]:
        """The scores by one metric, [graphs, images]; NaN where there is none."""
        found = [s.score for s in self.scores if s.metric == metric]
        rows = np.array(found, np.float64).reshape(len(self.images), len(self.graphs))
        return rows.T

    def estimates(self, metric: str) -> list[Estimate]:
        """Each graph's mean by a metric, with its interval."""
        return estimates(self.of(metric))

    def uneven(self, metric: str) -> bool:
        """Whether the graphs' means are of different images, as some have no score of all."""
        there = np.isfinite(self.of(metric))
        return bool((there[there.any(1)] != there.any(0)).any())

    def best(self, metric: str) -> int | None:
        """The graph of the best mean over the images of which every graph that has scores has one;
        None where there is no such image."""
        scores = self.of(metric)
        there = np.isfinite(scores)
        scored = there.any(1)
        shared = there[scored].all(0)
        if not (scored.any() and shared.any()):
            return None
        means = np.where(scored, scores[:, shared].mean(1), np.nan)
        chosen = next(one for one in self.metrics if one.name == metric)
        return int(np.nanargmax(means if chosen.better == HIGHER else -means))

    def behind(self, metric: str) -> list[Estimate]:
        """Each graph's mean less the best one's, paired over the images.

        An interval on both sides of 0 says that these images do not tell the two apart.
        """
        best = self.best(metric)
        scores = self.of(metric)
        return differences(scores, 0 if best is None else best)

    def tied(self, metric: str) -> list[bool]:
        """Whether these images do not tell a graph from the best one."""
        return [one.low <= 0 <= one.high for one in self.behind(metric)]

    @property
    def problems(self) -> list[Score]:
        """The scores that there are not."""
        return [score for score in self.scores if score.score is None]

    def problems_said(self) -> list[str]:
        """Why there is no score, each reason once: of an image that cannot be used, and of a metric
        for all images and graphs together that it is the same for."""
        said = dict[str, None]()
        alike = dict[tuple[str, str], list[Score]]()
        for problem in self.problems:
            if problem.target < 0:
                said[f"{problem.image}: {problem.error}"] = None
            else:
                alike.setdefault((problem.metric, problem.error), []).append(problem)
        for (metric, error), scores in alike.items():
            images = _counted({score.image for score in scores}, "images")
            graphs = _counted({score.graph for score in scores}, "graphs")
            said[f"{metric} of {images} by {graphs}: {error}"] = None
        return list(said)

    def to_json(self) -> dict[str, Any]:
        """Means and intervals by metric and graph, and what the evaluation was of."""
        return {
            "onnxplain": __version__,
            "graphs": list(self.graphs),
            "images": len(self.images),
            "seed": self.seed,
            "metrics": {
                metric.name: {
                    "better": metric.better,
                    "asks": metric.asks,
                    "best": None if (best := self.best(metric.name)) is None else self.graphs[best],
                    "means": {
                        graph: {
                            "mean": _number(mean.mean),
                            "interval": [_number(mean.low), _number(mean.high)],
                            "behind the best": [_number(apart.low), _number(apart.high)],
                            "images": mean.count,
                        }
                        for graph, mean, apart in zip(
                            self.graphs,
                            self.estimates(metric.name),
                            self.behind(metric.name),
                            strict=True,
                        )
                    },
                }
                for metric in self.metrics
            },
        }


def _counted(names: set[str], what: str) -> str:
    """The one, or how many."""
    return f"{len(names)} {what}" if len(names) > 1 else next(iter(names))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
