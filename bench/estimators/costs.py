"""What integrated gradients cost, in one file and with Captum: seconds, memory and bytes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import captum.attr
import torch
from torch import nn

from onnxplain.bench import networks
from onnxplain.bench.engines import accepts
from onnxplain.bench.estimators.networks import QUICK
from onnxplain.bench.estimators.parity import as_input
from onnxplain.bench.progress import progress_bar
from onnxplain.export.pipeline import export
from onnxplain.files import scratch
from onnxplain.machine import load_average, threads
from onnxplain.reference.parity import Parity
from onnxplain.runtime import load

NETWORK, STEPS, TURNS, CHUNK = "resnet50", 50, 3, 5
BATCHES = (1, 5, 10, 25)
"""Of Captum, of which the best counts."""


def costs(quick: bool = False) -> dict[str, Any]:
    """Of one network, the contenders in turns, on as many threads each.

    Args:
        quick: a small network and few steps.
    """
    pictures = networks.photographs()
    small = QUICK["a small ResNet"]
    module = small.module() if quick else networks.network(NETWORK, pictures)
    size, steps, turns = (small.size, 10, 1) if quick else (224, STEPS, TURNS)
    images = as_input(pictures, size)
    with scratch() as folder, progress_bar() as progress, torch.inference_mode(False):
        files = _files(module, folder, size, steps)
        x = torch.from_numpy(images[:1])
        target = int(load(files["one explanation"], "cpu")(images[:1]).targets[0])
        contenders: dict[str, Callable[[], Any]] = {
            name: partial(load(file, "cpu"), images[:1], [target]) for name, file in files.items()
        }
        for batch in BATCHES:
            contenders[f"Captum, batch {batch}"] = partial(
                captum.attr.IntegratedGradients(module).attribute,
                x,
                0 * x,
                target,
                n_steps=steps,
                internal_batch_size=batch,
                return_convergence_delta=True,
            )
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        answers: dict[str, Any] = {}
        task = progress.add_task("turns", total=turns * len(contenders))
        for _ in range(turns):
            for name, run in contenders.items():
                start = time.perf_counter()
                answers[name] = run()
                seconds[name].append(time.perf_counter() - start)
                progress.advance(task)
        ours, (theirs, delta) = answers["chunk 1"], answers[f"Captum, batch {BATCHES[0]}"]
        gained = float(ours.pullback.sum() - ours.convergence_delta[0])
        plain = files["one explanation"]
        return {
            "network": "a small ResNet" if quick else NETWORK,
            "steps": steps,
            "threads": threads(),
            "load average": load_average(),
            "seconds": {name: sorted(each)[len(each) // 2] for name, each in seconds.items()},
            "bytes": {name: file.stat().st_size for name, file in files.items()},
            "peak bytes": {
                f"chunk {CHUNK}": peak(files[f"chunk {CHUNK}"], size, 1),
                f"one batch of {CHUNK}": peak(plain, size, CHUNK),
            },
            "convergence delta": float(ours.convergence_delta[0]),
            "of Captum": float(delta[0]),
            "logit difference": gained,
            "relative L2 to Captum float32": Parity.of(
                ours.pullback, theirs.detach().numpy()
            ).relative_l2,
            "TensorRT-RTX": accepts(files["chunk 1"]) or "takes it",
        }


def _files(module: nn.Module, folder: Path, size: int, steps: int) -> dict[str, Path]:
    """By name: the gradient, and its integral with one sample at a time and with several."""
    found = {name: folder / f"{name}.onnx" for name in ("one explanation", "chunk 1")}
    found[f"chunk {CHUNK}"] = folder / "several.onnx"
    options: dict[str, Any] = {
        "example": torch.zeros(1, 3, size, size),
        "method": "gradient",
        "check": False,
    }
    for name, path in found.items():
        if name != "one explanation":
            options["estimator"] = "integrated-gradients"
            options["parameters"] = {"steps": steps, "chunk": int(name.split()[1])}
        export(module, path, **options)
    return found


_PEAK = """
import resource, sys
import numpy as np
from onnxplain.runtime import load
explainer = load(sys.argv[1], "cpu")
size, batch = int(sys.argv[2]), int(sys.argv[3])
images = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
explainer(images, [0] * batch, batch_size=batch)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(path: Path, size: int, batch: int) -> int:
    """The most memory, in bytes, of a process that loads a file and runs one batch (Linux)."""
    child = [sys.executable, "-P", "-c", _PEAK, str(path), str(size), str(batch)]
    return int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
