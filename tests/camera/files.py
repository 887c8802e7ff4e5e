"""Explain graphs that take photographs, of a network small enough for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import onnxplain
from onnxplain.contract.explain import Preprocessing

from ..cuda.small import SIZE, network

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def explain_graph(folder: Path, **options: Any) -> Path:
    """Its explain graph, for `options` of an export."""
    forward, path = folder / "network.onnx", folder / "network.explain.onnx"
    onnx.save(network(), forward)
    onnxplain.export(forward, path, **{"check": False, **options})
    return path


def answer(path: Path, image: NDArray[Any], **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime makes of a file, as anyone may call it; the target is class 1."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"image": image, "target": np.ones(len(image), np.int64), **inputs}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def preprocessing(**changed: Any) -> Preprocessing:
    return Preprocessing(**{"height": SIZE, "width": SIZE, "resize": 36, **changed})
