"""The commands that write, each on a small network and two small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import onnx
import torch
from PIL import Image

import onnxplain
from onnxplain.signal import weights
from onnxplain.signal.export import export_autoencoder
from onnxplain.signal.settings import CONFIG

from ..fuzz.seeds import convolutional
from ..signal.small import Linear, autoencoder, class_folders

COMMANDS: dict[str, Callable[[Path, Path], Sequence[object]]] = {
    "export": lambda at, out: ["export", at / "network.onnx", "-o", out / "new.explain.onnx"],
    "differentiate": lambda at, out: [
        *("differentiate", at / "network.onnx", "-o", out / "g.onnx")
    ],
    "explain": lambda at, out: ["explain", at / "g.explain.onnx", at / "images", "-o", out, *_CPU],
    "accentuate": lambda at, out: [
        *("accentuate", at / "g.explain.onnx", at / "images", "-o", out / "a.png"),
        *("--steps", 2, *_CPU),
    ],
    "report": lambda at, out: [
        *("report", at / "g.explain.onnx", at / "images", "-o", out / "r.html", *_CPU)
    ],
    "gallery": lambda at, out: [
        *("gallery", at / "images", "-n", at / "network.onnx", "-n", at / "g.explain.onnx"),
        *("-m", "gradient", "-o", out / "g.html", *_CPU),
    ],
    "stream": lambda at, out: [
        *("stream", at / "g.explain.onnx", at / "film.mkv", "-o", out / "f.mkv", *_CPU)
    ],
    "tune": lambda at, out: [
        *("tune", at / "network.onnx", at / "images", "-o", out / "t.png", "--classes", 2)
    ],
    "evaluate": lambda at, out: [
        *("evaluate", at / "g.explain.onnx", "-i", at / "images", "-o", out / "e"),
        *("-m", "random-logit,max-sensitivity", *_CPU),
    ],
    "choose": lambda at, out: [
        *("choose", at / "network.onnx", "-i", at / "images", "-o", out / "c.onnx"),
        *("--methods", "gradient,excitation"),
    ],
    "top-images": lambda at, out: [
        *("top-images", at / "network.onnx", at / "images", "-o", out / "t.json", "-l", "r", *_CPU)
    ],
    "visualize": lambda at, out: [
        *("visualize", at / "network.onnx", "-t", 1, "-r", at / "images", "-o", out),
        *("--steps", 3, "--count", 2, "--layers", "r", *_CPU),
    ],
    "triton": lambda at, out: ["package", at / "g.explain.onnx", "--triton", out / "models"],
    "oci": lambda at, out: ["package", at / "g.explain.onnx", "--oci", out / "image"],
    "kserve": lambda at, out: [
        *("package", at / "g.explain.onnx", "--kserve", out / "k.yaml", "--image", "a.example/b")
    ],
    "build": lambda at, out: [
        *("build", at / "g.explain.onnx", "-o", out / "e.engine", "--provider", "tensorrt-rtx")
    ],
    "web": lambda at, out: ["web", at / "g.explain.onnx", "-o", out / "site"],
    "animate": lambda at, out: [
        *("accentuate", at / "g.explain.onnx", at / "images" / "a.png", "-o", out / "a.png"),
        *("--steps", 2, "--animate", out / "a.gif", *_CPU),
    ],
    "sheet": lambda at, out: [
        *("top-images", at / "network.onnx", at / "images", "-o", out / "t.json", "-l", "r"),
        *("--sheet", out / "t.png", "--channel", 0, *_CPU),
    ],
    "train": lambda at, out: [
        *(
            "--trust",
            "signal",
            "train",
            _classes(at),
            "-o",
            out / "run",
            "-c",
            at / "linear.pt",
            *_SHORT,
        ),
        *("--size", 16, "--autoencoder", "segnet-tiny"),
        *(["--resume"] if (out / "run" / CONFIG).exists() else []),
    ],
    "signal-export": lambda at, out: [
        *("signal", "export", _autoencoder(at), "-o", out / "s.onnx")
    ],
    "show": lambda at, out: [
        *("signal", "show", _signal(at), at / "images", "-o", out / "s.png", *_CPU)
    ],
    "study": lambda at, out: [
        *("signal", "study", _classes(at), "-c", "plain", "-c", "residual", "-o", out / "study"),
        *("--size", 16, "--autoencoder", "segnet-tiny", "--classifier-epochs", 1, *_SHORT, *_CPU),
    ],
    "launches": lambda at, out: ["bench", "squeezenet1_1", "--launches", "-o", out / "b.json"],
    "bench": lambda at, out: [
        *("bench", "squeezenet1_1", "--quick", "--rounds", 1, "-o", out / "b.json")
    ],
    "demo": lambda at, out: ["demo", "-o", out / "demo", "--repeats", 1],
}
"""The arguments, given where the material lies and where to write."""

OVER_FILES = {
    "export",
    "differentiate",
    "explain",
    "accentuate",
    "report",
    "gallery",
    "stream",
    "tune",
    "choose",
    "kserve",
    "build",
    "animate",
    "signal-export",
    "show",
    "launches",
    "bench",
    "demo",
}
"""The commands that write over files of any kind; others go on from theirs, or refuse."""

OLD = b"the old one"

_CPU = ("--provider", "cpu")
_SHORT = ("--epochs", 1, "--tune-epochs", 1, "--batch", 4)


def _classes(at: Path) -> Path:
    """Two classes of pictures, and beside them a classifier in TorchScript."""
    folder = at / "classes"
    if not folder.exists():
        class_folders(folder)
        torch.jit.script(Linear(3, 16, 2)).save(at / "linear.pt")
    return folder


def _autoencoder(at: Path) -> Path:
    path = at / "autoencoder.pt"
    if not path.exists():
        weights.save_autoencoder(autoencoder(), path)
    return path


def _signal(at: Path) -> Path:
    path = at / "signal.onnx"
    if not path.exists():
        export_autoencoder(weights.load_autoencoder(_autoencoder(at)), path)
    return path


def material(folder: Path) -> None:
    """A network, its explain graph, two images and a film."""
    onnx.save(convolutional(), folder / "network.onnx")
    onnxplain.export(
        folder / "network.onnx",
        folder / "g.explain.onnx",
        labels=list("abcde"),
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 32, 32, 3), np.uint8)
    for name, image in zip("ab", images, strict=False):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    with av.open(str(folder / "film.mkv"), "w") as file:
        track = file.add_stream("libx264", 10)
        track.width, track.height, track.pix_fmt = 32, 32, "yuv420p"
        for image in images:
            file.mux(track.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        file.mux(track.encode())
