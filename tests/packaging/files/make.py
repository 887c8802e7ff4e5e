"""Writes what a release leaves for the later ones: python tests/packaging/files/make.py

Into a folder of the release's number: explain graphs of a small network, and what each answered.
Run once for each minor release; what is there is never written again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import onnxplain
from onnxplain.version import __version__

SIZE = 24
KINDS = {
    "classifier": {},
    "map": {"method": "gradcam"},
    "live": {"live_temperature": True, "step": True},
    "targets": {"multi_target": True},
    "integrated": {"method": "gradient", "estimator": "integrated-gradients"},
    "camera": {"preprocess": True, "picture": "overlay", "topk": 2},
    "segment": {"objective": "segment"},
}


def network(classes: int = 4) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, classes),
    ).eval()


def maps(classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, classes, 1)
    ).eval()


def photographs() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)


def main() -> None:
    folder = Path(__file__).parent / ".".join(__version__.split(".")[:2])
    folder.mkdir()
    for kind, options in KINDS.items():
        module = maps() if kind == "segment" else network()
        path = folder / f"{kind}.onnx"
        onnxplain.export(module, path, example=torch.zeros(1, 3, SIZE, SIZE), **options)
        explanation = onnxplain.load(path, "cpu")(list(photographs()))
        answers = {"pullback": explanation.pullback}
        if kind != "segment":
            answers["logits"] = explanation.logits
        np.savez_compressed(folder / f"{kind}.npz", **answers)


if __name__ == "__main__":
    main()
