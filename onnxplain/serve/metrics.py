"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)

STAGES = ("read", "decode", "queue", "inference", "render")
"""Reading the body; decoding and preprocessing; waiting for a call; the call; the answer."""


class Metrics:
    """A registry of its own for each service, so that two in one process are counted separately."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = counter(
            "onnxplain_requests", "Requests answered.", ["route", "method", "status"]
        )
        self.seconds = histogram(
            "onnxplain_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
        )
        self.stages = histogram(
            "onnxplain_stage_seconds",
            f"Time in each stage of a request: {', '.join(STAGES)}.",
            ["stage"],
            buckets=_SECONDS,
        )
        self.batch = histogram(
            "onnxplain_batch_images", "Images of a backend call.", ["model"], buckets=_IMAGES
        )
        self.queue = gauge(
            "onnxplain_queue_images", "Images waiting for a backend call.", ["model"]
        )
        self.accepted = gauge(
            "onnxplain_requests_in_progress",
            "Requests for explanations that are accepted and not yet answered.",
        )
        self.held = gauge("onnxplain_held_bytes", "Bytes of those requests' bodies.")
        self.refused = counter("onnxplain_refused", "Requests refused.", ["reason"])
        self.connections = counter(
            "onnxplain_connections_cut",
            "Connections that were too many, idle when others came, too slow, or not HTTP.",
            ["reason"],
        )
        self.loaded = gauge("onnxplain_models_loaded", "Models in memory.")
        self.loads = counter("onnxplain_model_loads", "Models loaded.", ["model"])
        self.evictions = counter(
            "onnxplain_model_evictions", "Models dropped for others.", ["model"]
        )

    def cut(self, reason: str) -> None:
        """Count a connection that was cut."""
        self.connections.labels(reason).inc()

    def observe_call(self, model: str, images: int, seconds: float, waited: list[float]) -> None:
        """Count one call of a backend, for the images of several requests."""
        self.batch.labels(model).observe(images)
        for wait in waited:
            self.stages.labels("queue").observe(wait)
            self.stages.labels("inference").observe(seconds)

    def follow_queue(self, model: str, images: Callable[[], float]) -> None:
        """Show what `images` returns, until `forget_queue`."""
        self.queue.labels(model).set_function(images)

    def forget_queue(self, model: str) -> None:
        """Forget what `follow_queue` was given."""
        self.queue.remove(model)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time within as one of `STAGES`."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.stages.labels(name).observe(perf_counter() - begin)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
