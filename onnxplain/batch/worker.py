"""What runs in each process of the pool."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxplain.batch.attempt import Attempt
from onnxplain.batch.commit import Folder, Record
from onnxplain.batch.plan import Listing, Recipe
from onnxplain.batch.shard import ShardExplainer
from onnxplain.errors import BackendError, InputError, OnnxplainError
from onnxplain.runtime import load
from onnxplain.runtime.loading import digest_of
from onnxplain.version import __version__

_ATTEMPTS = 4  # machines get lost now and then
_ERRORS = {"InputError": InputError, "BackendError": BackendError}


@dataclass(frozen=True)
class Job:
    """What a worker is told. All paths are absolute, and the same on every machine.

    Attributes:
        model: the explain graph or engine.
        out: the output folder.
        threads: CPU threads for one run of the graph.
        images: what the estimator takes, by name.
    """

    model: Path
    out: Path
    recipe: Recipe
    threads: int
    images: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Worker:
    """Explains one shard per call. Ray keeps one of these in each process of its pool.

    An error that concerns a whole shard is returned, not raised: Ray would wrap it, and would retry
    if the constructor raised it.
    """

    def __init__(self, job: Job) -> None:
        self._folder = Folder(job.out)
        self._problem: OnnxplainError | None = None
        try:
            recipe = job.recipe
            _check_machine(job.model, recipe)
            explainer = load(job.model, recipe.provider, recipe.precision, job.threads)
            self._explainer = ShardExplainer(explainer, recipe, job.threads, job.images)
            self._listing = Listing(self._folder.listing)
        except OnnxplainError as error:
            self._problem = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """{"shard": [number]} → the columns of its `Record`, or an error for `raise_problem`."""
        (shard,) = (int(number) for number in batch["shard"])
        try:
            if self._problem is not None:
                raise self._problem
            record = self._folder.committed(shard) or self._explain(shard)
        except OnnxplainError as error:
            return {"problem": [str(error)], "kind": [type(error).__name__]}
        return {name: [value] for name, value in asdict(record).items()}

    def _explain(self, shard: int) -> Record:
        attempt = Attempt(self._folder.attempts(shard))
        if attempt.number - len(attempt.deadly) > _ATTEMPTS:  # Ray itself would try for ever
            raise BackendError(
                f"shard {shard} ended its worker {_ATTEMPTS} times, and not while an image was "
                "decoded: memory may be short; use fewer workers"
            )
        items = self._listing.shard(shard)
        return self._explainer.explain(self._folder, shard, items, attempt)


def raise_problem(row: dict[str, Any]) -> None:
    """Raise the error that a worker returned instead of a record."""
    if (problem := row.get("problem")) is not None:
        raise _ERRORS.get(row["kind"], OnnxplainError)(problem)


def _check_machine(model: Path, recipe: Recipe) -> None:
    """Check that this machine has what the run was planned with: a cluster has many machines."""
    if recipe.onnxplain != __version__:
        raise BackendError(
            f"{platform.node()} has onnxplain {__version__}, and the run is of "
            f"{recipe.onnxplain}: install the same on every machine"
        )
    if digest_of(model) != recipe.model:
        raise BackendError(
            f"'{model}' on {platform.node()} is another file than the run was begun with: copy the "
            "same to every machine"
        )
