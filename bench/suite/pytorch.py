"""PyTorch's candidates: the same pullback, and the forward pass alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

from onnxplain.bench.suite.candidate import Candidate, Run
from onnxplain.bench.suite.job import Job


def pytorch_candidates(device: str, compiled: bool) -> Iterator[Candidate]:
    """Eager, channels-last and half precision, compiled if asked for, CUDA-graphed on a GPU."""
    from onnxplain.bench.suite.pytorch_variants import variants

    yield Candidate("PyTorch eager", "forward", "PyTorch", _forward)
    for variant in variants(device):
        if compiled or not variant.startswith("compile"):
            explain = partial(_explain, variant=variant)
            yield Candidate(f"PyTorch {variant}", "explain", "PyTorch", explain)
    if device == "cuda":
        yield Candidate("PyTorch CUDA graph", "explain", "PyTorch", _recorded)


def _forward(job: Job) -> Run:
    import torch

    module, (images, _) = copy.deepcopy(job.module), tensors(job)

    @torch.no_grad()
    def run() -> Any:
        return waited(module(images))

    return run


def _explain(job: Job, variant: str) -> Run:
    from onnxplain.bench.suite.pytorch_variants import variants

    explain = variants(job.device)[variant](job.module, job.temperature)
    images, targets = tensors(job)
    return lambda: waited(explain(images, targets)[1])


def _recorded(job: Job) -> Run:
    from onnxplain.bench.suite.pytorch_variants import recorded, variants

    images, targets = tensors(job)
    explain = variants(job.device)["eager"](job.module, job.temperature)
    graphed = recorded(explain, images, targets)
    return lambda: waited(graphed(images, targets)[1])


def tensors(job: Job) -> tuple[Any, Any]:
    """The job's images and targets for PyTorch, which is told its threads."""
    import torch

    torch.set_num_threads(job.threads)
    return torch.from_numpy(job.images).to(job.device), torch.from_numpy(job.targets).to(job.device)


def waited(result: Any) -> Any:
    """The result, once the GPU has it."""
    import torch

    if result.is_cuda:
        torch.cuda.synchronize()
    return result
