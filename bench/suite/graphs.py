"""Explain graphs on every provider and precision here, and the forward pass alone on the same.

With onnxplain-kernels, where that is installed, beside standard operators alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onnxplain.bench.suite.candidate import Candidate, Run
from onnxplain.bench.suite.job import Job
from onnxplain.bench.suite.record import KERNELS
from onnxplain.contract.explain import IMAGE, LOGITS, PULLBACK, TARGET
from onnxplain.reference.forward import write_forward
from onnxplain.runtime import load
from onnxplain.runtime.sessions import open_session, usable
from onnxplain.runtime.sessions.onnx_runtime.kernels import library

ON_CPU: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("cpu", "float32", {}),
    ("openvino", "float32", {}),
    ("openvino", "bfloat16", {}),
)
ON_GPU: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(
        ("cuda", precision, {"cuda_graphs": graphs})
        for precision in ("float32", "tf32", "float16")
        for graphs in (False, True)
    ),
    *(
        (provider, precision, {})
        for provider in ("tensorrt", "tensorrt-rtx")
        for precision in ("float32", "float16")
    ),
)
"""(provider, precision, the provider's options)."""


def graph_candidates(device: str, targets: Sequence[int], maps: bool) -> Iterator[Candidate]:
    """Forward and explanation on each provider and precision; activation maps if asked for."""
    for provider, precision, options in ON_GPU if device == "cuda" else ON_CPU:
        if precision not in usable(provider):
            continue
        graphs = ", CUDA graph" if options.get("cuda_graphs") else ""
        name = f"{provider} {precision}{graphs}"
        engine = {"provider": provider, "precision": precision, **options}
        yield Candidate(name, "forward", "onnxplain", partial(_forward, engine=engine))
        for K in targets:
            kind = "explain" if K == 1 else f"explain K={K}"
            yield Candidate(name, kind, "onnxplain", partial(_explain, engine=engine, K=K))
        if provider in ("cpu", "cuda") and library() is not None:
            fused = partial(_explain, engine=engine, K=1, kernels=True)
            yield Candidate(f"{name}{KERNELS}", "explain", "onnxplain", fused)
        if maps:
            gradcam = partial(_explain, engine=engine, K=1, method="gradcam")
            yield Candidate(f"{name}, Grad-CAM", "map", "onnxplain", gradcam)


def _forward(job: Job, engine: dict[str, Any]) -> Run:
    path = write_forward(job.graph(), job.folder / f"{job.network}.forward.onnx")
    images = {IMAGE: _images(job)}
    session = open_session(path, threads=_threads(job), **engine)
    if job.device == "cuda":
        return lambda: _synchronised(session.run_on_device(images)[LOGITS])
    return lambda: session.run(images)[LOGITS]


def _explain(
    job: Job, engine: dict[str, Any], K: int, method: str = "excitation", kernels: bool = False
) -> Run:
    explainer = _load(job.graph(method, K, kernels), job, engine)
    images, targets = _images(job), job.targets if K == 1 else job.several(K)
    if job.device == "cuda":
        import torch

        there = torch.from_numpy(targets).to(job.device)
        return lambda: _synchronised(explainer(images, there).pullback)
    feeds = {IMAGE: images, TARGET: targets}
    return lambda: explainer.backend.run(feeds)[PULLBACK]


def _load(path: Path, job: Job, engine: dict[str, Any]) -> Any:
    return load(path, threads=_threads(job), **engine)


def _threads(job: Job) -> int | None:
    return job.threads if job.device == "cpu" else None


def _images(job: Job) -> Any:
    if job.device == "cpu":
        return job.images
    import torch

    return torch.from_numpy(job.images).to(job.device)


def _synchronised(pullback: Any) -> Any:
    import torch

    torch.cuda.synchronize()
    return pullback
