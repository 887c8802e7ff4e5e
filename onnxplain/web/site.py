"""Write the site: the page, the explain graph, a description of it for the page, ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.sessions import open_backend
from onnxplain.runtime.signature import Signature
from onnxplain.web.onnxruntime_web import copy_runtime

STAGES = ("checking the graph", "getting onnxruntime-web", "writing the site")

_STATIC = Path(__file__).parent / "static"
_DESCRIPTION = "model.json"
_MARK = "onnxplain"  # the entry of model.json that marks a folder as a site of ours


def write_site(model: Path, folder: Path, progress: Callable[[str], None] | None = None) -> None:
    """Write a static site that explains photographs in the browser, with an explain graph.

    A new folder appears complete or not at all. In a site that onnxplain wrote before, each file is
    replaced completely, and other files are left alone.

    Args:
        model: an explain graph, made by `onnxplain.export`.
        folder: where to write; new, empty, or a site that this function wrote.
        progress: called with each of `STAGES` as it begins.

    Raises:
        BackendError: not an explain graph, or one that browsers cannot run; onnxruntime-web cannot
            be downloaded.
        InputError: a folder that holds something else, or cannot be written.
    """
    begin = progress or (lambda stage: None)
    begin(STAGES[0])
    folder = folder.resolve()
    _check_folder(folder)
    signature = open_backend(model).signature
    if signature.dtype != np.float32:
        raise BackendError(
            f"'{model}' computes in {signature.dtype}, the web page in float32; "
            "export the network in float32"
        )
    if signature.step:
        raise BackendError(
            f"'{model}' was exported with --step; the page makes its own steps, export without"
        )
    if signature.metadata.is_map:
        raise BackendError(
            f"'{model}' gives class activation maps; the page climbs along pullbacks of the image, "
            "export with another method, such as excitation"
        )
    if signature.metadata.is_relevance:
        raise BackendError(
            f"'{model}' gives relevances; the page climbs along pullbacks of the image, "
            "export with another method, such as excitation"
        )
    begin(STAGES[1])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        near = folder if folder.exists() else folder.parent  # on the same file system
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=near) as temporary:
            site = Path(temporary) / "site"
            shutil.copytree(_STATIC, site)
            runtime = copy_runtime(site / "ort")
            begin(STAGES[2])
            shutil.copyfile(model, site / "model.onnx")
            files = [site / "model.onnx", *runtime]
            sizes = {file.name: file.stat().st_size for file in files}
            description = json.dumps(_describe(signature) | {"bytes": sizes}, ensure_ascii=False)
            (site / _DESCRIPTION).write_text(description, encoding="utf-8")
            _put(site, folder)
    except OSError as error:
        raise InputError(f"cannot write the site '{folder}': {error}") from error


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; name a folder for the site")
    if any(folder.iterdir()) and not _is_ours(folder):
        raise InputError(
            f"'{folder}' holds something that is not a site of onnxplain; name a new folder"
        )


def _is_ours(folder: Path) -> bool:
    try:
        return _MARK in json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _describe(signature: Signature) -> dict[str, Any]:
    """What the page must know about the graph."""
    metadata = signature.metadata
    return {
        _MARK: metadata.version,
        "source": metadata.source,
        "method": metadata.method,
        "parameters": dict(metadata.parameters),
        "preprocessing": dataclasses.asdict(metadata.preprocessing),
        "labels": list(metadata.labels),
        "activation": metadata.activation,
        "ascent": dataclasses.asdict(metadata.ascent),
        "classes": signature.classes,
        "batch": signature.batch,
        "multi_target": signature.multi_target,
        "live_temperature": signature.live_temperature,
        "live": list(signature.live),
    }


def _put(site: Path, folder: Path) -> None:
    if not folder.exists():
        site.rename(folder)
        return
    for file in sorted(site.rglob("*")):
        if file.is_file():
            destination = folder / file.relative_to(site)
            destination.parent.mkdir(exist_ok=True)
            file.replace(destination)
