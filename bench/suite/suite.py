"""The whole benchmark: networks × batches, each a record, written as soon as it is there."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxplain.bench.suite.job import LAYERS, Job, prepare
from onnxplain.bench.suite.measure import Scope, measure
from onnxplain.errors import BackendError
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine
from onnxplain.version import __version__

NETWORKS = (
    "resnet50",
    "vgg11_bn",
    "densenet121",
    "efficientnet-lite0",
    "mobilenet_v2",
    "convnext_tiny",
    "vit_b_16",
)


@dataclass(frozen=True)
class Plan:
    """What the benchmark runs.

    Attributes:
        batches: images per run, the smallest first.
        rounds: interleaved ones that count, at the first batch; the others get half as many.
        scope: the candidates at the first batch. Compiled ones and peers are measured there alone.
        memory: whether memory is measured, at the first batch.
        device: "cpu" or "cuda".
    """

    networks: Sequence[str] = NETWORKS
    batches: Sequence[int] = (1, 8)
    rounds: int = 20
    scope: Scope = dataclasses.field(default_factory=Scope)
    memory: bool = True
    threads: int = 1
    device: str = "cpu"


def suite(plan: Plan, out: Path | None, progress: Callable[[str, int, int], None]) -> Any:
    """Measure it all.

    Args:
        out: a JSON file for the results, written anew after each record.
        progress: told what is being done, and how many of how many records are there.

    Returns:
        "onnxplain" (the version), "machine", "device", "threads" and "records".

    Raises:
        OnnxplainError: a network that cannot be had or exported; a file that cannot be written.
    """
    results: dict[str, Any] = {
        "onnxplain": __version__,
        "machine": {**machine(), **_gpu(plan.device)},
        "device": plan.device,
        "threads": plan.threads,
        "records": [],
    }
    jobs = len(plan.networks) * len(plan.batches)
    with scratch() as made:
        for network in plan.networks:
            folder = made / network
            folder.mkdir()
            progress(f"{network}: export", len(results["records"]), jobs)
            maps = plan.scope.peers and network in LAYERS
            prepare(network, folder, several=max(plan.scope.targets) > 1, maps=maps)
            for batch in plan.batches:
                job = Job(network, batch, plan.threads, folder, plan.device)
                first = batch == plan.batches[0]
                alone = dataclasses.replace(plan.scope, compiled=False, peers=False)
                record = measure(
                    job,
                    plan.scope if first else alone,
                    plan.rounds if first else max(plan.rounds // 2, 1),
                    plan.memory and first and plan.device == "cpu",
                    lambda what, job=job: progress(  # type: ignore[misc]
                        f"{job.network}, batch {job.batch}: {what}", len(results["records"]), jobs
                    ),
                )
                results["records"].append(record)
                if out is not None:
                    with replacing(out) as beside:
                        beside.write_text(json.dumps(results, indent=1) + "\n")
                gc.collect()
    return results


def _gpu(device: str) -> dict[str, str]:
    """The GPU's name; there float32 is made float32 for everybody."""
    if device != "cuda":
        return {}
    import torch

    if not torch.cuda.is_available():
        raise BackendError("PyTorch finds no GPU here; leave out --device cuda")
    torch.backends.cudnn.allow_tf32 = False
    return {"gpu": torch.cuda.get_device_name()}
