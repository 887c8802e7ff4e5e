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
from onnxplain.runtime.sessions import usable

NETWORK, STEPS, TURNS, CHUNK = "resnet50", 50, 3, 5
COMPLETE = (50, 200)
"""Steps with which completeness is looked at."""

ONE, SINGLE, SEVERAL, CAPTUM = "one explanation", "chunk 1", f"chunk {CHUNK}", "Captum"
BATCHES = (1, 5, 10, 25)
"""Of Captum, of which the best counts."""

RUNTIMES = (
    ("ONNX Runtime", "cpu", "float32"),
    ("OpenVINO", "openvino", "float32"),
    ("OpenVINO bfloat16", "openvino", "bfloat16"),
)
"""A name, a provider and a precision; one that is not here is left out."""


def costs(quick: bool = False) -> dict[str, Any]:
    """Of one network, the contenders in turns, on as many threads each; completeness of another.

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
        target = int(load(files[ONE], "cpu")(images[:1]).targets[0])
        contenders: dict[str, Callable[[], Any]] = {
            f"{runtime}, {name}": partial(load(file, provider, precision), images[:1], [target])
            for runtime, provider, precision in RUNTIMES
            if precision in usable(provider)
            for name, file in files.items()
        }
        for batch in BATCHES:
            contenders[f"{CAPTUM}, batch {batch}"] = partial(
                _captum, module, images[:1], target, steps, batch
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
        theirs = answers[f"{CAPTUM}, batch {BATCHES[0]}"][0]
        return {
            "network": "a small ResNet" if quick else NETWORK,
            "steps": steps,
            "threads": threads(),
            "load average": load_average(),
            "seconds": {name: sorted(each)[len(each) // 2] for name, each in seconds.items()},
            "relative L2 to Captum": {
                name: Parity.of(answer.pullback, theirs).relative_l2
                for name, answer in answers.items()
                if ONE not in name and CAPTUM not in name
            },
            "bytes": {name: file.stat().st_size for name, file in files.items()},
            "peak bytes": {
                SEVERAL: peak(files[SEVERAL], size, 1),
                f"one batch of {CHUNK}": peak(files[ONE], size, CHUNK),
            },
            "TensorRT-RTX": accepts(files[SINGLE]) or "takes it",
            "completeness": [] if quick else completeness(folder),
        }


def _captum(module: nn.Module, image: Any, target: int, steps: int, batch: int) -> tuple[Any, ...]:
    """Attributions and convergence delta, as arrays."""
    x = torch.from_numpy(image)
    found = captum.attr.IntegratedGradients(module).attribute(
        *(x, 0 * x, target),
        n_steps=steps,
        internal_batch_size=batch,
        return_convergence_delta=True,
    )
    return tuple(one.detach().numpy() for one in found)


def completeness(folder: Path) -> list[dict[str, Any]]:
    """Of the trained network and each photograph: by how much the attributions' sum misses the
    logit's difference to the baseline, here and in Captum, and that difference."""
    pictures = networks.photographs()
    (name,) = networks.TRAINED
    module, images = networks.network(name, pictures), as_input(pictures, 224)
    found = []
    for steps in COMPLETE:
        explainer = load(_files(module, folder, 224, steps)[SEVERAL], "cpu")
        for photograph, image in zip(networks.PHOTOGRAPHS, images, strict=True):
            ours = explainer(image[None])
            theirs = _captum(module, image[None], int(ours.targets[0]), steps, 10)[1]
            delta = float(ours.convergence_delta[0])
            found.append(
                {
                    "network": name,
                    "photograph": photograph,
                    "steps": steps,
                    "convergence delta": delta,
                    "of Captum": float(theirs[0]),
                    "logit difference": float(ours.pullback.sum(dtype=float)) - delta,
                }
            )
    return found


def _files(module: nn.Module, folder: Path, size: int, steps: int) -> dict[str, Path]:
    """By name: the gradient, and its integral with one sample at a time and with several."""
    found = {ONE: folder / "one.onnx", SINGLE: folder / "1.onnx", SEVERAL: folder / "several.onnx"}
    options: dict[str, Any] = {
        "example": torch.zeros(1, 3, size, size),
        "method": "gradient",
        "check": False,
    }
    for name, path in found.items():
        if name != ONE:
            options["estimator"] = "integrated-gradients"
            options["parameters"] = {"steps": steps, "chunk": int(name.split()[1])}
        export(module, path, **options)
    return found


_PEAK = """
import sys
from pathlib import Path
import numpy as np
from onnxplain.runtime import load
from onnxplain.runtime.sessions import usable
explainer = load(sys.argv[1], "cpu")
size, batch = int(sys.argv[2]), int(sys.argv[3])
images = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
explainer(images, [0] * batch, batch_size=batch)
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(1024 * int(status["VmHWM"].split()[0]))
"""


def peak(path: Path, size: int, batch: int) -> int:
    """The most memory, in bytes, of a process that loads a file and runs one batch (Linux).

    As the kernel counts it of this program: what `getrusage` says begins with its parent's.
    """
    child = [sys.executable, "-P", "-c", _PEAK, str(path), str(size), str(batch)]
    return int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
