"""A service's models: loaded when first used, dropped when others need the room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxplain.contract.explain import Metadata
from onnxplain.errors import BackendError
from onnxplain.runtime import Explainer, Explanation, load
from onnxplain.runtime.explanation import explanation_of
from onnxplain.runtime.loading import metadata_of
from onnxplain.serve.batcher import Batcher, Work
from onnxplain.serve.metrics import Metrics
from onnxplain.serve.refusal import Refusal, overloaded
from onnxplain.serve.settings import Settings

_BUSY_RETRY = 2.0  # seconds


@dataclass(eq=False)
class Model:
    """A model in memory.

    Attributes:
        uses: how many requests hold it; it is not dropped while any do.
        used: when the last of them released it, by `time.monotonic`.
    """

    name: str
    explainer: Explainer
    batcher: Batcher[Explanation]
    uses: int = 0
    used: float = 0.0


class Models:
    """All models of a service by name.

    Raises:
        BackendError: one of the files is not an explain graph.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._loaded: dict[str, Model] = {}
        self.metadata: Mapping[str, Metadata] = {
            name: _metadata(path) for name, path in settings.models.items()
        }

    def loaded(self, name: str) -> Model | None:
        """The model, if it is in memory."""
        return self._loaded.get(name)

    def seconds_left(self) -> float:
        """About how many seconds the waiting images will take."""
        return sum(model.batcher.seconds_left() for model in self._loaded.values())

    def check(self, name: str) -> None:
        """Raises Refusal if there is no such model."""
        if name not in self.metadata:
            known = ", ".join(self.metadata)
            raise Refusal(404, f"there is no model {name!r} here; known: {known}", "unknown")

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Model]:
        """The model, loaded if necessary, and kept in memory while it is held.

        Raises:
            Refusal: there is no such model, or all that fit into memory are in use.
            BackendError: it cannot be loaded.
        """
        self.check(name)
        while (model := self._loaded.get(name)) is None:
            await asyncio.shield(self._load(name))
        model.uses += 1
        try:
            yield model
        finally:
            model.uses -= 1
            model.used = time.monotonic()

    def _load(self, name: str) -> asyncio.Task[None]:
        """The task that loads a model for all who wait; its thread, and so it, outlives them."""
        if (task := self._loading.get(name)) is None:
            self._make_room()
            task = self._loading[name] = asyncio.create_task(self._into_memory(name))
            task.add_done_callback(_looked_at)
        return task

    async def _into_memory(self, name: str) -> None:
        running = self._settings.running
        try:
            explainer = await asyncio.to_thread(
                load,
                self._settings.models[name],
                running.provider,
                running.precision,
                running.threads,
            )
        finally:
            del self._loading[name]
        signature, batching = explainer.backend.signature, self._settings.batching
        most = signature.most or batching.images
        batching = replace(batching, images=signature.batch or min(batching.images, most))
        batcher = Batcher(
            partial(_explained, explainer, batching.images),
            batching,
            partial(self._metrics.observe_call, name),
        )
        self._metrics.follow_queue(name, lambda: batcher.waiting)
        self._loaded[name] = Model(name, explainer, batcher, used=time.monotonic())
        self._metrics.loads.labels(name).inc()
        self._metrics.loaded.set(len(self._loaded))

    def _make_room(self) -> None:
        while len(self._loaded) + len(self._loading) >= self._settings.running.loaded:
            idle = [model for model in self._loaded.values() if model.uses == 0]
            if not idle:
                raise overloaded("all models in memory are in use", _BUSY_RETRY)
            oldest = min(idle, key=lambda model: model.used)
            del self._loaded[oldest.name]
            oldest.batcher.close()
            self._metrics.forget_queue(oldest.name)
            self._metrics.evictions.labels(oldest.name).inc()
            self._metrics.loaded.set(len(self._loaded))

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()
        for model in self._loaded.values():
            model.batcher.close()


def _explained(explainer: Explainer, batch_size: int, work: Work) -> Explanation:
    """One call's, without photographs; what has no batch axis may be of others, and is left out."""
    batch, targets, inputs = work.batch, work.targets, work.inputs
    most = min(batch_size, work.most or batch_size)
    outputs = explainer.answer(batch, targets, work.temperature, batch_size=most, inputs=inputs)
    explained = explainer.metadata.objective
    own = {name: array for name, array in outputs.items() if explained.batch_axis(name) is not None}
    photographs = np.zeros((len(batch), 0, 0, 3), np.uint8)
    return explanation_of(explainer.backend.signature, own, targets, photographs, inputs)


def _looked_at(task: asyncio.Task[None]) -> None:
    """Retrieve the exception even if nobody waits any more, or asyncio would complain."""
    if not task.cancelled():
        task.exception()


def _metadata(path: Path) -> Metadata:
    try:
        metadata = metadata_of(path)
        metadata.require_image("the service")
        if own := ", ".join(map(repr, metadata.estimator.inputs)):
            raise BackendError(f"its estimator takes {own}, and a request gives one image alone")
        return metadata
    except BackendError as error:
        raise BackendError(f"'{path}' cannot be served: {error}") from error
