"""Write the site: the page, explain graphs, a description of each for the page, ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.contract.objective import EXPLAINED_BOX, EXPLAINED_CLASS
from onnxplain.contract.pixels import NV12, PHOTOGRAPH, Pixels
from onnxplain.errors import BackendError, InputError
from onnxplain.files import clear, scratch
from onnxplain.reading import parsed, text
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.sessions import open_backend
from onnxplain.runtime.signature import Signature
from onnxplain.web.onnxruntime_web import copy_runtime

STAGES = ("checking the graph", "getting onnxruntime-web", "writing the site")

_STATIC = Path(__file__).parent / "static"
_DESCRIPTION = "model.json"
_PHOTOGRAPHS = "photographs"
_MARK = "onnxplain"  # the entry of model.json that marks a folder as a site of ours


def write_site(
    models: Path | Sequence[Path],
    folder: Path,
    progress: Callable[[str], None] | None = None,
    photographs: Sequence[Path] = (),
) -> None:
    """Write a static site that explains photographs in the browser, with explain graphs.

    A new folder appears complete or not at all. In a site that onnxplain wrote before, each file is
    replaced completely, and other files are left alone.

    Args:
        models: explain graphs, made by `onnxplain.export`: one, or several to choose from, the
            first of which is loaded with the page.
        folder: where to write; new, empty, or a site that this function wrote.
        progress: called with each of `STAGES` as it begins.
        photographs: image files that the page offers.

    Raises:
        BackendError: not an explain graph, or one that browsers cannot run; onnxruntime-web cannot
            be downloaded.
        InputError: no graph; a photograph that cannot be read; a folder that holds something else,
            or cannot be written.
    """
    begin = progress or (lambda stage: None)
    begin(STAGES[0])
    folder = folder.resolve()
    _check_folder(folder)
    graphs = [models] if isinstance(models, Path) else list(models)
    if not graphs:
        raise InputError("no explain graph given")
    signatures = [_signature(model) for model in graphs]
    for photograph in photographs:
        load_image(photograph)
    begin(STAGES[1])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        near = folder if folder.exists() else folder.parent  # on the same file system
        with scratch(near) as temporary:
            site = temporary / "site"
            shutil.copytree(_STATIC, site)
            runtime = copy_runtime(site / "ort")
            begin(STAGES[2])
            _write_graphs(site, graphs, signatures, runtime, _copied(photographs, site))
            _put(site, folder)
    except OSError as error:
        raise InputError(f"cannot write the site '{folder}': {error}") from error


def _signature(model: Path) -> Signature:
    """A graph's, which a page can use."""
    signature = open_backend(model).signature
    metadata = signature.metadata
    metadata.require_image("the page")
    metadata.require_one_size("the page")
    _check_pixels(model, metadata.pixels)
    if signature.dtype != np.float32:
        raise BackendError(
            f"'{model}' computes in {signature.dtype}, the web page in float32; "
            "export the network in float32"
        )
    if signature.step:
        raise BackendError(
            f"'{model}' was exported with step=True; the page makes its own steps, export without"
        )
    if metadata.estimator.inputs:
        raise BackendError(
            f"the page gives one photograph, and '{model}' takes "
            f"{', '.join(metadata.estimator.inputs)} besides; export without the estimator"
        )
    if metadata.preprocessing.channels not in (1, 3):
        raise BackendError(
            f"'{model}' takes images of {metadata.preprocessing.channels} channels, which no "
            "photograph has; use onnxplain.load, and give normalised floats"
        )
    if (reason := metadata.no_direction) is not None:
        raise BackendError(f"the page climbs along the pullback, and in '{model}' {reason}")
    return signature


def _check_pixels(model: Path, pixels: Pixels) -> None:
    """
    Raises:
        BackendError: the page cannot make such pixels, or draw such a pullback.
    """
    if pixels.format == NV12:
        raise BackendError(
            f"a browser has red, green and blue, and '{model}' takes NV12: export with pixels='rgb'"
        )
    if pixels.geometry == PHOTOGRAPH or pixels.quantised:
        raise BackendError(
            f"the page draws what the network saw, in floats: export the network of '{model}' "
            "without geometry='photograph' and quantise_output"
        )


def _copied(photographs: Sequence[Path], site: Path) -> list[str]:
    """The photographs' addresses in the site."""
    folder = site / _PHOTOGRAPHS
    folder.mkdir()
    addresses = []
    for number, photograph in enumerate(photographs, 1):
        copy = folder / f"{number}-{_slug(photograph.stem)}{photograph.suffix.lower()}"
        shutil.copyfile(photograph, copy)
        addresses.append(f"{_PHOTOGRAPHS}/{copy.name}")
    return addresses


def _write_graphs(
    site: Path,
    graphs: Sequence[Path],
    signatures: Sequence[Signature],
    runtime: Sequence[Path],
    photographs: Sequence[str],
) -> None:
    """Each graph with its description; the first one's has the menu too."""
    stems = ["model", *(f"model-{number}" for number in range(2, len(graphs) + 1))]
    networks = [
        {"name": name, "description": f"{stem}.json"}
        for stem, name in zip(stems, _names(graphs, signatures), strict=True)
    ]
    for stem, model, signature in zip(stems, graphs, signatures, strict=True):
        graph = site / f"{stem}.onnx"
        shutil.copyfile(model, graph)
        sizes = {file.name: file.stat().st_size for file in [graph, *runtime]}
        entries = _describe(signature) | {"graph": graph.name, "bytes": sizes}
        if stem == stems[0]:
            entries |= {"networks": networks, "photographs": photographs}
        described = json.dumps(entries, ensure_ascii=False)
        (site / f"{stem}.json").write_text(described, encoding="utf-8")


def _names(graphs: Sequence[Path], signatures: Sequence[Signature]) -> list[str]:
    """What the menu calls each: network and method, and the file where two are alike."""
    names = [f"{s.metadata.source}, {s.metadata.method}" for s in signatures]
    return [
        name if names.count(name) == 1 else f"{name}, {graph.stem}"
        for name, graph in zip(names, graphs, strict=True)
    ]


def _slug(name: str) -> str:
    """A name as part of an address."""
    return re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-") or "photograph"


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; name a folder for the site")
    clear(folder)
    if any(folder.iterdir()) and _described(folder) is None:
        raise InputError(
            f"'{folder}' holds something that is not a site of onnxplain; name a new folder"
        )


def _described(folder: Path) -> dict[str, Any] | None:
    """What a site of ours says of its first graph; None of anything else."""
    try:
        found = parsed(text(folder / _DESCRIPTION))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and _MARK in found else None


def _describe(signature: Signature) -> dict[str, Any]:
    """What the page must know about the graph."""
    metadata = signature.metadata
    return {
        _MARK: metadata.version,
        "source": metadata.source,
        "method": metadata.method,
        "parameters": dict(metadata.parameters),
        "preprocessing": dataclasses.asdict(metadata.preprocessing),
        "pixels": metadata.pixels.format,
        "labels": list(metadata.labels),
        "activation": metadata.activation,
        "ascent": dataclasses.asdict(metadata.ascent),
        "objective": _explained(signature),
        "classes": signature.classes,
        "batch": signature.batch,
        "multi_target": signature.multi_target,
        "live_temperature": signature.live_temperature,
        "live": list(signature.live),
    }


def _explained(signature: Signature) -> dict[str, Any] | None:
    """What is explained, where that is no class's logit; `vector` is the output from which the page
    takes a query."""
    explained = signature.metadata.objective
    if explained.is_class:
        return None
    told = [name for name in (EXPLAINED_CLASS, EXPLAINED_BOX) if name in signature.outputs]
    vectors = [
        n
        for n, axes in explained.axes.items()
        if "vector" in axes[1:] and not explained.batch_axis(n)
    ]
    return dataclasses.asdict(explained) | {"told": told, "vector": next(iter(vectors), None)}


def _named_by(folder: Path) -> set[Path]:
    """The graphs, descriptions and photographs of a site as it was, which go if it has others;
    none where what it says of them is damaged."""
    first = _described(folder) or {}
    try:
        descriptions = [one["description"] for one in first.get("networks", [])]
        graphs = [str(Path(name).with_suffix(".onnx")) for name in descriptions]
        named = {folder / name for name in (*descriptions, *graphs, *first.get("photographs", []))}
        return {file for file in named if file.resolve().is_relative_to(folder.resolve())}
    except (OSError, KeyError, TypeError, ValueError):
        return set()


def _put(site: Path, folder: Path) -> None:
    if not folder.exists():
        site.rename(folder)
        return
    before = _named_by(folder)
    for file in sorted(site.rglob("*")):
        if file.is_file():
            destination = folder / file.relative_to(site)
            destination.parent.mkdir(exist_ok=True)
            file.replace(destination)
            before.discard(destination)
    for file in before:
        file.unlink(missing_ok=True)
