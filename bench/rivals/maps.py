"""OpenVINO-XAI's maps beside Grad-CAM on OpenVINO: what each gives, how fast, how alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import shape_inference

from onnxplain.bench import networks
from onnxplain.bench.rivals.networks import write
from onnxplain.bench.rivals.worker import working
from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET
from onnxplain.export.pipeline import export
from onnxplain.machine import load_average, machine
from onnxplain.runtime import load
from onnxplain.runtime.sessions import open_session
from onnxplain.timing import ratio, rounds

Array = npt.NDArray[Any]
Record = dict[str, Any]

OURS, THEIRS = "onnxplain", "OpenVINO-XAI"
PACKAGE, VERSION = "openvino_xai", "1.1.0"
NETWORK, SIZE, WARMUP = "efficientnet-lite0", (224, 224), 3
FORWARD, GRAD_CAM = "forward", "Grad-CAM"
METHODS = {"Recipro-CAM": "RECIPROCAM", "Activation map": "ACTIVATIONMAP"}
LAYERS = {7: "Clip", 14: "Add"}
"""The side of the features that are explained → the operator that makes them, the last that does.

OpenVINO-XAI takes no value that a Clip reads, whose first input in OpenVINO is not its data.
"""
SCRIPT = Path(__file__).with_name("openvino_xai_worker.py")


def measure_maps(python: Path, folder: Path, repeats: int, threads: int) -> Record:
    """One photograph's maps by both, in rounds, each on its own OpenVINO: float32, as many threads.

    Args:
        python: of an environment that has OpenVINO-XAI.
        folder: for the files that are made.

    Returns:
        "openvino", its version, and the "forward" pass's median seconds, by whom; "rows", of each
        method for each layer: the "shape" of what a call gives beside the logits, its "median" in
        seconds, and "÷ forward" on the same OpenVINO. OpenVINO-XAI's have "÷ onnxplain", which is
        Grad-CAM at the same layer, and "correlation", of that class's map, or the only one, with
        Grad-CAM's.
    """
    image = _image()
    network = _network(image, folder / "network.onnx")
    forward = partial(open_session(network, "openvino", threads).run, {"x": image})
    target = forward()["y"].argmax(axis=1)
    ours: dict[str, Callable[[], Any]] = {FORWARD: forward}
    theirs: dict[str, Any] = {FORWARD: None}
    for side, value in _values(network).items():
        path = folder / f"{side}.explain.onnx"
        export(network, path, method="gradcam", layer=value)
        explain = load(path, "openvino", threads=threads).backend.run
        ours[f"{GRAD_CAM} {side}"] = partial(explain, {IMAGE: image, TARGET: target})
        theirs |= {f"{name} {side}": (method, value) for name, method in METHODS.items()}
    with working(python, SCRIPT, _job(folder, network, image, threads, theirs)) as worker:
        asked = {f"{THEIRS} {name}": partial(worker, name) for name in theirs}
        taken = rounds({**ours, **asked}, repeats, WARMUP)
    seconds = {name: samples[WARMUP:] for name, samples in worker.seconds.items()}
    rows: list[Record] = []
    with np.load(folder / "maps.npz") as maps:
        for side in LAYERS:
            samples = taken[f"{GRAD_CAM} {side}"]
            expected = ours[f"{GRAD_CAM} {side}"]()[PULLBACK][0]
            rows.append(_row(OURS, GRAD_CAM, side, expected, samples, taken[FORWARD]))
            for method in METHODS:
                found, own = maps[f"{method} {side}"][0], seconds[f"{method} {side}"]
                row = _row(THEIRS, method, side, found, own, seconds[FORWARD])
                row["÷ onnxplain"] = ratio(own, samples)
                one = found[target[0]] if found.ndim > 2 else found
                row["correlation"] = _correlation(one, expected[0])
                rows.append(row)
    return {
        "network": NETWORK,
        "rounds": repeats,
        "threads": threads,
        "machine": machine(),
        "load average": load_average(),
        "openvino": {OURS: version("openvino"), THEIRS: worker.runtime},
        FORWARD: {OURS: median(taken[FORWARD]), THEIRS: median(seconds[FORWARD])},
        "rows": rows,
    }


def _image() -> Array:
    """The first photograph, as the network takes it: values of -1 to 1, [1, 3, height, width]."""
    pixels = np.asarray(networks.photographs()[0].resize(SIZE), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / 127.5 - 1)


def _network(image: Array, path: Path) -> Path:
    write(networks.network(NETWORK, ()), (torch.from_numpy(image),), path, open_batch=False)
    return path


def _values(network: Path) -> dict[int, str]:
    """The side of the features of each layer → the value in the file."""
    graph = shape_inference.infer_shapes(onnx.load(network)).graph
    sides = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    made = [(node.op_type, node.output[0]) for node in reversed(graph.node)]
    return {
        side: next(
            value
            for op, value in made
            if op == kind and len(sides[value]) == 4 and sides[value][-1].dim_value == side
        )
        for side, kind in LAYERS.items()
    }


def _job(folder: Path, network: Path, image: Array, threads: int, calls: Record) -> Path:
    """What the script is told, in a file."""
    np.save(folder / "image.npy", image)
    paths = {
        name: str(folder / f"{name}.{end}") for name, end in (("image", "npy"), ("maps", "npz"))
    }
    job = folder / "job.json"
    job.write_text(
        json.dumps({**paths, "network": str(network), "threads": threads, "calls": calls})
    )
    return job


def _row(
    by: str, method: str, side: int, given: Array, samples: list[float], forward: list[float]
) -> Record:
    return {
        "by": by,
        "method": method,
        "side": side,
        "shape": given.shape,
        "median": median(samples),
        "÷ forward": ratio(samples, forward),
    }


def _correlation(found: Array, expected: Array) -> float:
    """Pearson's, of a map that is enlarged to the other's size, bilinearly."""
    small = torch.from_numpy(found.astype(np.float32))[None, None]
    large = torch.nn.functional.interpolate(small, expected.shape, mode="bilinear")
    return float(np.corrcoef(large.numpy().ravel(), expected.ravel())[0, 1])
