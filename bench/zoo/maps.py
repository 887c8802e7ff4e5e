"""The maps that a transformer's file gives with no layer named, or why it gives none."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxplain import load
from onnxplain.bench.zoo.entry import awaken, image_shape, sentence
from onnxplain.bench.zoo.networks import FAMILIES, TRANSFORMERS
from onnxplain.errors import SourceError
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import from_module, torch_network
from onnxplain.files import scratch

METHODS = ("gradcam", "legrad", "transformer-attribution")
"""Of the last layer with a place in the image, of each layer of attention, and of all of them
multiplied."""


def maps_of(name: str) -> dict[str, Any]:
    """Ask an untrained network for each kind of map.

    Args:
        name: as `onnxplain export` takes it.

    Returns:
        Ready for JSON: "reason" (None, or why it could not be traced), "image" [C, H, W] and
        "methods", the name of each → what `map_of` returns.
    """
    try:
        network = torch_network(name, "none")
        awaken(network.module)
        shape = image_shape(network)
        model = from_module(network.module, torch.zeros(2, *shape)).model
    except Exception as error:
        return {"reason": sentence(error)}
    with scratch() as folder:
        forward = folder / "forward.onnx"
        ir.save(model, forward, external_data="forward.onnx.data")
        del model, network
        methods = {method: map_of(forward, method) for method in METHODS}
    return {"reason": None, "image": shape, "methods": methods}


def map_of(forward: Path, method: str) -> dict[str, Any]:
    """Export a traced network, and run it on an image of noise.

    Returns:
        "refused": None, or the sentence why there is no such map. "failed": None, or what else went
        wrong. Of a map, "seconds" of the export, and "of": what the file says that it is of.
    """
    path = forward.with_name(f"{method}.onnx")
    start = time.perf_counter()
    try:
        metadata = export(forward, path, method=method, check=False)
        seconds = time.perf_counter() - start
        pre = metadata.preprocessing
        shape = 1, pre.channels, pre.height, pre.width
        noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        found = load(path, "cpu", threads=torch.get_num_threads())(noise).pullback
    except SourceError as error:
        return {"refused": str(error), "failed": None}
    except Exception as error:
        return {"refused": None, "failed": sentence(error)}
    finally:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    is_map = found.shape == (1, 1, *shape[2:]) and np.isfinite(found).all()
    return {
        "refused": None,
        "failed": None if is_map else f"no finite map, {found.shape}",
        "seconds": seconds,
        "of": _of(metadata.parameters.get("layer"), metadata.notes),
    }


def _of(layer: str | None, notes: tuple[str, ...]) -> str:
    """The note on what the map is of, or the layer."""
    told = [note.removeprefix("the map is of ") for note in notes if "the map is of" in note]
    return told[-1] if told else str(layer)


def answered(entry: Mapping[str, Any]) -> bool:
    """Whether of each kind there is a map, or a sentence."""
    return entry["reason"] is None and all(m["failed"] is None for m in entry["methods"].values())


def maps_section(results: Mapping[str, Any]) -> Iterator[str]:
    """What was asked, and a row for each network: what each map is of, or the number of the
    sentence that says why there is none; these follow."""
    entries = [entry for entry in results["networks"].values() if entry["reason"] is None]
    given = sum(entry["methods"][METHODS[0]]["refused"] is None for entry in entries)
    yield (
        f"With no layer named, of {len(entries)} untrained networks, one or more of each family "
        f"with attention or what stands in its place: `{METHODS[0]}` gives a map of {given}. Made "
        "by `python -m onnxplain.bench.zoo maps`, from "
        "[`bench/results/maps.json`](../bench/results/maps.json)."
    )
    yield ""
    families = {f"timm/{name}": family for family, name in FAMILIES.items()}
    networks, reasons = results["networks"], dict[str, int]()
    yield "| network | family | " + " | ".join(METHODS) + " |"
    yield "| " + " | ".join(["---"] * (2 + len(METHODS))) + " |"
    for name in (f"timm/{name}" for name in TRANSFORMERS):
        entry = networks.get(name)
        if entry is None:
            continue
        cells = [name.removeprefix("timm/"), families.get(name, "")]
        if entry["reason"] is not None:
            cells += [f"not traced: {entry['reason']}", *[""] * (len(METHODS) - 1)]
        else:
            cells += [_cell(entry["methods"][method], reasons) for method in METHODS]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield from (f"{number}. {reason}" for reason, number in reasons.items())
    if waiting := [name for name in TRANSFORMERS if f"timm/{name}" not in networks]:
        yield ""
        yield f"Not asked yet: {', '.join(waiting)}."


def _cell(made: Mapping[str, Any], reasons: dict[str, int]) -> str:
    if made["failed"] is not None:
        return f"✗ {made['failed']}"
    if made["refused"] is not None:
        _, _, why = made["refused"].rpartition(" all layers, and ")  # the same of both methods
        return f"({reasons.setdefault(why, len(reasons) + 1)})"
    return str(made["of"])
