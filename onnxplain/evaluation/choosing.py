"""Choose an explanation for a network: methods, temperatures and estimators, measured on images."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE
from onnxplain.errors import InputError, OnnxplainError
from onnxplain.evaluation.metrics import HIGHER
from onnxplain.evaluation.protocols import METRICS
from onnxplain.evaluation.run import evaluate
from onnxplain.files import replacing, scratch
from onnxplain.reference.forward import write_forward
from onnxplain.runtime import load
from onnxplain.runtime.onnx_file import weights_beside
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.verification import sample, usual_run
from onnxplain.timing import ratio, rounds

QUALITIES: Mapping[str, str] = {
    "faithfulness": "faithfulness-correlation",
    "localisation": "focus",
    "stability": "max-sensitivity",
}
"""What is asked besides the cost → the metric that measures it."""

TRIED = ("excitation", "semantic", "gradient", "guided", "gradcam", "guided-gradcam")
"""The methods that are tried unless others are asked for."""

_IMAGES = 10
_ROUNDS = 5


@dataclass(frozen=True)
class Candidate:
    """What is tried: a method, at a temperature and with an estimator, or by itself.

    Attributes:
        temperature: None for the method's own.
        estimator: None for one point.
    """

    method: str
    temperature: float | None = None
    estimator: str | None = None

    @property
    def name(self) -> str:
        of = self.method if self.estimator is None else f"{self.estimator} of {self.method}"
        return of if self.temperature is None else f"{of}, T = {self.temperature:g}"


@dataclass(frozen=True)
class Measured:
    """One candidate on the images.

    Attributes:
        cost: explain ÷ forward, by the clock.
        qualities: by `QUALITIES`, the greater the better; NaN where a metric has no score.
    """

    candidate: Candidate
    cost: float
    qualities: Mapping[str, float]

    def dominates(self, other: Measured) -> bool:
        """Whether it is nowhere worse, and better somewhere. What has no score is not compared."""
        pairs = [(-self.cost, -other.cost)]
        pairs += [(self.qualities[name], other.qualities[name]) for name in self.qualities]
        pairs = [(a, b) for a, b in pairs if np.isfinite([a, b]).all()]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@dataclass(frozen=True)
class Choice:
    """
    Attributes:
        measured: every candidate that the network can be explained by.
        refused: the others by their names, with the reason.
        chosen: of the front, and within the cost that was allowed, the one whose rank by the three
            qualities is least on average; of equal ones the cheapest.
    """

    measured: Sequence[Measured]
    chosen: Measured
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def front(self) -> list[Measured]:
        """The Pareto front: those that no other dominates, the cheapest first."""
        return front(self.measured)


def front(measured: Sequence[Measured]) -> list[Measured]:
    """Those that no other dominates, the cheapest first."""
    best = [one for one in measured if not any(other.dominates(one) for other in measured)]
    return sorted(best, key=lambda one: one.cost)


def best_of(measured: Sequence[Measured], most: float | None = None) -> Measured:
    """Of the front, at a cost of `most` at most, the one of the least mean rank by qualities.

    Raises:
        InputError: each costs more.
    """
    affordable = [one for one in measured if most is None or one.cost <= most]
    if not affordable:
        least = min(one.cost for one in measured)
        raise InputError(f"the cheapest costs {least:.1f} forward passes, and {most:g} are allowed")
    candidates = front(affordable)
    scores = np.array([[one.qualities[name] for name in QUALITIES] for one in candidates])
    mean = _ranks(scores).mean(1)
    return candidates[int(mean.argmin())]  # the first, which is the cheapest, of equal ones


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column how many are better, [candidates, qualities]; what has no score is last."""
    known = np.where(np.isfinite(scores), scores, -np.inf)
    better: NDArray[np.bool_] = known[None] > known[:, None]
    return better.sum(1).astype(np.float64)


def choose(
    source: Any,
    images: Sequence[Path],
    path: Path,
    *,
    methods: Sequence[str] = TRIED,
    temperatures: Sequence[float | None] = (None,),
    estimators: Sequence[str | None] = (None,),
    most: float | None = None,
    options: Mapping[str, Any] | None = None,
    count: int = _IMAGES,
    provider: str = "cpu",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Choice:
    """Try explanations of a classifier on images, and write the chosen one.

    Args:
        source: a network, as `onnxplain.export` takes it.
        images: files.
        path: of the explain graph to write.
        temperatures: None is each method's own; others are tried where a method has one.
        estimators: None is one point.
        most: the forward passes that an explanation may cost.
        options: of the export besides.
        count: so many of the images, drawn by a seed.
        provider: what runs the graphs.
        progress: called with how many of all scores are there.

    Raises:
        SourceError: the network can be explained by none of them.
        InputError: no image that can be used; nothing within the cost; a path that cannot be
            written.
        BackendError: as `onnxplain.load`.
        ModuleNotFoundError: Quantus is not installed.
    """
    with scratch() as folder:
        candidates = candidates_of(methods, temperatures, estimators)
        graphs, refused = _exported(source, folder, path.name, candidates, options or {})
        found = evaluate(
            [*graphs.values()],
            [*map(str, images)],
            metrics=[*QUALITIES.values()],
            count=count,
            provider=provider,
            progress=progress,
        )
        signs = {n: 1 if METRICS[m].better == HIGHER else -1 for n, m in QUALITIES.items()}
        means = {n: [one.mean for one in found.estimates(m)] for n, m in QUALITIES.items()}
        if all(score.target < 0 for score in found.scores):
            raise InputError(
                f"none of {len(found.images)} images can be used: {found.scores[0].error}"
            )
        ratios = costs([*graphs.values()], provider)
        measured = [
            Measured(candidate, ratios[i], {n: signs[n] * means[n][i] for n in QUALITIES})
            for i, candidate in enumerate(graphs)
        ]
        chosen = best_of(measured, most)
        graph = graphs[chosen.candidate]
        for file in (*weights_beside(graph), graph):
            with replacing(path.with_name(file.name)) as new:
                shutil.copyfile(file, new)
    return Choice(measured, chosen, refused)


def candidates_of(
    methods: Sequence[str],
    temperatures: Sequence[float | None],
    estimators: Sequence[str | None],
) -> list[Candidate]:
    """All of them together; a temperature only of methods that have one."""
    from onnxplain.export.methods import METHODS

    made = []
    for method, T, estimator in itertools.product(methods, temperatures, estimators):
        known = METHODS.find(method)
        has = known is not None and known.has_temperature
        made.append(Candidate(method, T if has else None, estimator))
    return list(dict.fromkeys(made))


def _exported(
    source: Any,
    folder: Path,
    file: str,
    candidates: Sequence[Candidate],
    options: Mapping[str, Any],
) -> tuple[dict[Candidate, Path], dict[str, str]]:
    """Each candidate's file, and why others have none.

    All are called `file`, each in its own folder, so that weights beside one have the name that is
    written in it wherever it goes.

    Raises:
        SourceError, InputError: the first one's, where no candidate has a file.
    """
    from onnxplain.export import export

    graphs, refused, errors = {}, {}, []
    for i, one in enumerate(candidates):
        path = folder / f"{i}" / file
        path.parent.mkdir()
        asked: dict[str, Any] = {"temperature": one.temperature, "estimator": one.estimator}
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            export(source, path, method=one.method, **options, **given)
            graphs[one] = path
        except OnnxplainError as error:
            refused[one.name] = str(error)
            errors.append(error)
    if not graphs:
        raise errors[0]
    return graphs, refused


def costs(graphs: Sequence[Path], provider: str) -> list[float]:
    """Explain ÷ forward of each, by interleaved rounds on one image of noise, or on as many as the
    graphs take at once."""
    explainers = [load(path, provider) for path in graphs]
    backend = explainers[0].backend
    batch = sample(explainers[0])[: backend.signature.batch or 1]
    cut = write_forward(graphs[0], graphs[0].with_suffix(".forward.onnx"))
    forward = open_session(cut, backend.provider)
    calls: dict[str, Callable[[], object]] = {
        str(i): usual_run(explainer, batch) for i, explainer in enumerate(explainers)
    }
    calls["forward"] = lambda: forward.run({IMAGE: batch})
    seconds = rounds(calls, _ROUNDS, 1)
    return [ratio(seconds[str(i)], seconds["forward"]) for i in range(len(graphs))]


def plot(choice: Choice, path: Path, title: str) -> None:
    """Draw each quality against the cost; the front is labelled, and the chosen one marked.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        InputError: the path cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")  # files only, no window
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        len(QUALITIES), 1, sharex=True, figsize=(8, 10), layout="constrained"
    )
    best = choice.front
    for axes, name in zip(panels, QUALITIES, strict=True):
        for one in choice.measured:
            on_front = one in best
            colour = "#b5361c" if one is choice.chosen else "#1a1a1a" if on_front else "#aaaaaa"
            axes.plot(one.cost, one.qualities[name], "o", color=colour)
            if on_front:
                at = one.cost, one.qualities[name]
                axes.annotate(
                    one.candidate.name, at, xytext=(6, 4), textcoords="offset points", fontsize=8
                )
        axes.set_ylabel(f"{name} →")
        axes.margins(x=0.2, y=0.15)
        axes.grid(alpha=0.25)
    panels[-1].set_xlabel("cost, explain ÷ forward")
    figure.suptitle(f"{title}: {choice.chosen.candidate.name}")
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130)
    pyplot.close(figure)
