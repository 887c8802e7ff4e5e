"""Whether a network's explanations stay on the GPU under ONNX Runtime's CUDA provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from onnxplain.bench.zoo.entry import image_shape, sentence
from onnxplain.export import export
from onnxplain.export.sources.source import from_module, torch_network
from onnxplain.files import scratch
from onnxplain.runtime.fake_cuda import build
from onnxplain.runtime.fake_cuda.ask import Claims, claims

METHODS = ("gradient", "excitation", "semantic", "gradcam", "lrp-zplus")
PRECISIONS = ("float32", "float16")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": METHODS,
    "multi_target": METHODS,
    "live_temperature": ("excitation", "semantic"),
    "step": ("gradient", "excitation", "semantic"),
}
"""What else an export can be asked for → the methods that it goes with."""


def claims_of(name: str, variants: Iterable[str] = VARIANTS) -> dict[str, Any]:
    """Export a network every way, untrained, and ask the provider of each graph and precision.

    Args:
        name: as `onnxplain export` takes it.
        variants: those of `VARIANTS` to ask for.

    Returns:
        Ready for JSON: "reason" (None, or why it could not be traced), "variants", "refused":
        "method variant" → why there is no such graph of the network, "asked": how many there were,
        in each precision, and "leaves": of those that do not stay on the GPU as a whole, "method
        variant precision" → what leaves it (`found`).
    """
    try:
        network = torch_network(name, "none")
        model = from_module(network.module, torch.zeros(2, *image_shape(network))).model
    except Exception as error:
        return {"reason": sentence(error)}
    names = list(variants)
    refused: dict[str, str] = {}
    leaves: dict[str, Any] = {}
    cases = [(method, variant) for variant in names for method in VARIANTS[variant]]
    with scratch() as folder:
        forward = folder / "forward.onnx"
        ir.save(model, forward, external_data="forward.onnx.data")
        del model, network
        asked: list[str] = []

        def graphs() -> Iterator[tuple[Path, str]]:
            for case, path in exported(cases, forward, folder, refused):
                for precision in PRECISIONS:
                    asked.append(f"{case} {precision}")
                    yield path, precision

        for answer in claims(graphs(), build(folder)):
            if (what := found(answer)) is not None:
                leaves[asked[-1]] = what
    return {
        "reason": None,
        "variants": names,
        "refused": refused,
        "asked": len(asked),
        "leaves": leaves,
    }


def exported(
    cases: Sequence[tuple[str, str]], forward: Path, folder: Path, refused: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """ "method variant" and its graph, each exported while the provider is asked of the one before.

    Args:
        cases: (method, variant).
        refused: gets those of which there is no graph, and why.
    """

    def write(number: int) -> Path | None:
        method, variant = cases[number]
        path = folder / f"explain{number % 2}.onnx"
        options: dict[str, Any] = {} if variant == "plain" else {variant: True}
        try:
            export(forward, path, method=method, check=False, **options)
        except Exception as error:
            refused[f"{method} {variant}"] = sentence(error)
            return None
        return path

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(write, 0)
        for number, (method, variant) in enumerate(cases):
            path = ahead.result()
            if number + 1 < len(cases):
                ahead = pool.submit(write, number + 1)
            if path is not None:
                yield f"{method} {variant}", path


def found(answer: Claims | str) -> str | dict[str, Any] | None:
    """None, or why there is no session, or what leaves the GPU and why no CUDA graph is made."""
    if isinstance(answer, str):
        return answer
    if answer.whole:
        return None
    return {
        "on_processor": answer.on_processor,
        "copies": answer.copies,
        "graph_refused": answer.graph_refused,
    }


def merged(before: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """Of two entries of a network, for each variant what was found last."""
    if made["reason"] is not None or before["reason"] is not None:
        return made if before["reason"] is not None else before
    kept = [variant for variant in before["variants"] if variant not in made["variants"]]

    def both(what: str) -> dict[str, Any]:
        old = {case: why for case, why in before[what].items() if case.split()[1] in kept}
        return old | made[what]

    variants, refused = [*kept, *made["variants"]], both("refused")
    graphs = sum(len(VARIANTS[variant]) for variant in variants) - len(refused)
    return {
        "reason": None,
        "variants": variants,
        "refused": refused,
        "asked": graphs * len(PRECISIONS),
        "leaves": both("leaves"),
    }
