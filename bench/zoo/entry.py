"""One network's entry in the zoo table: exported, compared with PyTorch, offered to TensorRT."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxplain import load
from onnxplain.bench.engines import accepts
from onnxplain.contract.explain import IMAGE, LOGITS, PULLBACK, TARGET
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import TorchNetwork, from_module, torch_network
from onnxplain.files import scratch
from onnxplain.reference.answers import Array, classes_of, of_graph, of_pytorch
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.parity import Parity
from onnxplain.reference.rounding import moved_by_rounding

METHODS = ("gradient", "excitation", "semantic")

SMALL = 128

COMPILED = "excitation"
"""The method whose graph is offered to TensorRT-RTX."""


def entry(name: str) -> dict[str, Any]:
    """Trace a network once, untrained (seed 0) and awake, and try every method on it.

    Args:
        name: as `onnxplain export` takes it.

    Returns:
        Ready for JSON: "reason" (None, or why it could not be traced), "parameters", "image"
        [C, H, W], "trace_seconds", "forward_bytes" of the traced file, and "methods", the name of
        each → what `tried` returns.
    """
    try:
        network = torch_network(name, "none")
        awaken(network.module)
        shape = image_shape(network)
        start = time.perf_counter()
        model = from_module(network.module, torch.zeros(2, *shape)).model
    except Exception as error:
        return {"reason": sentence(error)}
    seconds = time.perf_counter() - start
    with scratch() as folder:
        forward = folder / "forward.onnx"
        ir.save(model, forward, external_data="forward.onnx.data")
        del model
        size = _bytes(forward)
        return {
            "reason": None,
            "parameters": sum(p.numel() for p in network.module.parameters()),
            "image": shape,
            "trace_seconds": seconds,
            "forward_bytes": size,
            "methods": {method: tried(forward, network.module, method) for method in METHODS},
        }


def image_shape(network: TorchNetwork) -> tuple[int, int, int]:
    """The network's own image [C, H, W], or a small one where it takes any: right is right."""
    pre = network.preprocessing
    if min(pre.height, pre.width) > SMALL:
        small = torch.zeros(1, pre.channels, SMALL, SMALL)
        with contextlib.suppress(Exception), torch.no_grad():  # a fixed size shows in many errors
            network.module.eval()(small)
            return pre.channels, SMALL, SMALL
    return pre.channels, pre.height, pre.width


def awaken(module: torch.nn.Module) -> None:
    """Make random what is initialised to one number: heads and biases of 0, scales of 1 or 1e-6.

    A network with a head of 0 has a pullback of 0, and any graph would agree with it.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
            elif parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter.uniform_(0.5, 1.5)


def tried(forward: Path, module: torch.nn.Module, method: str) -> dict[str, Any]:
    """Export a traced network with one method, and measure what came out.

    Returns:
        "reason" (None, or why it could not be exported or run), "export_seconds" (besides the
        trace), "bytes", "batch" (None where any number of images can be run at once),
        "logits" and "pullback" (each a `Parity` against the float64 reference, on two images of
        Gaussian noise), where the pullback misses the bounds "float64" (the `Parity` of the same
        graph's in float64, or why it could not be evaluated), where that misses them too
        "rounding" (see `moved_by_rounding`), and of the method `COMPILED` "tensorrt" (None where
        TensorRT-RTX's compiler takes the graph, or why not).
    """
    path = forward.with_name(f"{method}.explain.onnx")
    try:
        start = time.perf_counter()
        export(forward, path, method=method)
        seconds = time.perf_counter() - start
        gc.collect()  # of a large network, copies in cycles and the compiler do not fit together
        tensorrt = {"tensorrt": accepts(path)} if method == COMPILED else {}
        explainer = load(path, "cpu", threads=torch.get_num_threads())
        shape = explainer.metadata.preprocessing
        batch = explainer.backend.signature.batch
        images = np.random.default_rng(0).standard_normal(
            (batch or 2, shape.channels, shape.height, shape.width), dtype=np.float32
        )
        targets = np.array([-1, -2])[: len(images)]
        answer = of_graph(explainer, images, targets)
        classes = classes_of(targets, answer.logits)
        metadata = explainer.metadata
        del explainer  # nor do it and the float64 reference
        reference = of_pytorch(metadata, module, images, classes)
        parity = answer.parity(reference)
        made: dict[str, Any] = {
            "reason": None,
            "export_seconds": seconds,
            "bytes": _bytes(path),
            "batch": batch,
            LOGITS: dataclasses.asdict(parity[LOGITS]),
            PULLBACK: dataclasses.asdict(parity[PULLBACK]),
            **tensorrt,
        }
        if not parity[PULLBACK].agrees:
            found = in_float64(path, images, classes, reference.pullback)
            made["float64"] = found if isinstance(found, str) else dataclasses.asdict(found)
            if isinstance(found, str) or not found.agrees:
                made["rounding"] = moved_by_rounding(
                    lambda m: of_pytorch(metadata, m, images, classes).pullback,
                    module,
                    reference.pullback,
                )
        return made
    except Exception as error:
        return {"reason": sentence(error)}
    finally:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()


def in_float64(path: Path, images: Array, classes: Array, reference: Array) -> Parity | str:
    """The `Parity` of the graph's pullback evaluated in float64, or why it could not be."""
    try:
        pullback = evaluate_in_float64(path, {IMAGE: images, TARGET: classes})[PULLBACK]
        return Parity.of(pullback, reference)
    except Exception as error:  # whatever an operator that NumPy has to play may raise
        return sentence(error)


def _bytes(path: Path) -> int:
    """Of a model, with the weights beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
