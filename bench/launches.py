"""How many nodes and kernels an explanation takes beside its forward pass. No machine decides that.

A GPU that computes one image waits for launches, which no count of multiply-adds shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from rich.table import Table

from onnxplain.bench.engines import compiled_layers
from onnxplain.errors import BackendError, InputError
from onnxplain.export import export
from onnxplain.export.sources.source import read
from onnxplain.files import scratch
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime.fake_cuda.ask import Claims, claims, surroundings
from onnxplain.runtime.sessions.onnx_runtime.kernels import has_cuda, library
from onnxplain.runtime.sessions.onnx_runtime.placement import placement

NETWORKS = {
    "resnet50": "excitation",
    "vgg11_bn": "excitation",
    "densenet121": "excitation",
    "mobilenet_v2": "excitation",
    "efficientnet-lite0": "excitation",
    "convnext_tiny": "semantic",
    "vit_b_16": "semantic",
}
"""Those of the table → the method for networks of that kind."""

FORWARD, EXPLAIN, FUSED = SIDES = ("forward", "explain", "explain, kernels")
"""The forward pass; the explanation; and that with onnxplain-kernels, where it is installed."""

_PROCESSOR = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Launches:
    """The counts of one network, each by side: those of `SIDES` that could be had.

    Attributes:
        provider: "cuda", where it can be asked, or "cpu".
        nodes: operator → nodes, after ONNX Runtime's own optimisation for that provider.
        kernels: launched by one run of one image, where they are counted.
        layers: regions that TensorRT-RTX compiles the graph to, where it is installed.
    """

    network: str
    method: str
    provider: str
    nodes: Mapping[str, Mapping[str, int]]
    kernels: Mapping[str, int]
    layers: Mapping[str, int]


def launches(network: str, method: str, source: Any = None) -> Launches:
    """Export a network, untrained, and count.

    Args:
        source: what to export under that name; None for the network of that name.

    Raises:
        OnnxplainError: it cannot be exported, or ONNX Runtime does not say.
    """
    with scratch() as folder:
        paths = {side: folder / f"{number}.onnx" for number, side in enumerate(SIDES)}
        traced = folder / "traced.onnx"
        model = (read(network, weights="none") if source is None else read(source)).model
        ir.save(model, traced, external_data="traced.onnx.data")
        del model
        export(traced, paths[EXPLAIN], method=method)
        onnx.save(forward_proto(paths[EXPLAIN]), paths[FORWARD])
        layers = {side: compiled_layers(paths[side]) for side in (FORWARD, EXPLAIN)}
        environment = _cuda(folder)
        if library() is None or (environment is not None and not has_cuda()):
            del paths[FUSED]
        else:
            export(traced, paths[FUSED], method=method, kernels=True)
        if environment is None:
            placed = {s: placement(path, "float32", _PROCESSOR) for s, path in paths.items()}
            nodes, kernels = {side: dict(found.nodes) for side, found in placed.items()}, {}
        else:
            asked = on_cuda(paths, environment)
            nodes = {side: dict(claim.nodes) for side, claim in asked.items()}
            kernels = {side: claim.kernels for side, claim in asked.items()}
    provider = "cpu" if environment is None else "cuda"
    return Launches(network, method, provider, nodes, _known(kernels), _known(layers))


def ratios(found: Mapping[str, Any], what: str = "nodes") -> dict[str, float]:
    """Nodes, or kernels, of each explanation, in those of its forward pass.

    Args:
        found: a `Launches` as JSON.
        what: "nodes" or "kernels"; there may be none of these.
    """
    counts = {
        side: count if isinstance(count, int) else sum(count.values())
        for side, count in found[what].items()
    }
    return {side: n / counts[FORWARD] for side, n in counts.items() if side != FORWARD}


def worse(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """What is worse than it was, a sentence for each: an explanation that has more nodes, or
    launches more kernels, in those of its forward pass; a graph that TensorRT-RTX makes
    more regions of; and one that was counted then and is not now.

    Raises:
        InputError: the two have no network in common, counted on the same provider.
    """
    earlier = {(one["network"], one["provider"]): one for one in baseline["networks"]}
    pairs = [(one, earlier.get((one["network"], one["provider"]))) for one in results["networks"]]
    known = [(now, before) for now, before in pairs if before is not None]
    if not known:
        raise InputError("the earlier results have none of these networks on this provider")
    sentences = []
    for now, before in known:
        name = now["network"]
        for what in ("nodes", "kernels"):
            found = ratios(now, what)
            for side, was in ratios(before, what).items():
                if side not in found:
                    sentences.append(f"{name}, {side}: its {what} are not counted now, and were")
                elif found[side] > MORE * was:
                    more = f"{found[side]:.2f} × the forward's {what}, and was {was:.2f}"
                    sentences.append(f"{name}, {side}: {more}")
        for side, regions in before["layers"].items():
            if side not in now["layers"]:
                sentences.append(f"{name}, {side}: its regions are not counted now, and were")
            elif (count := now["layers"][side]) > regions:
                sentences.append(f"{name}, {side}: {count} regions, and was {regions}")
    return sentences


MORE = 1.02
"""A ratio may be this many times its baseline: what two releases of ONNX Runtime differ by."""


def _cuda(folder: Path) -> dict[str, str] | None:
    """The environment of a process that sees CUDA, a GPU's or the fake; None if there is none."""
    try:
        return surroundings(folder)
    except BackendError:
        return None


def on_cuda(paths: Mapping[str, Path], environment: Mapping[str, str]) -> dict[str, Claims]:
    """What the CUDA provider does with the graphs.

    Raises:
        BackendError: no session is made of one.
    """
    answers = claims([(path, "float32") for path in paths.values()], environment, run=True)
    found = {}
    for side, answer in zip(paths, answers, strict=True):
        if isinstance(answer, str):
            raise BackendError(answer)
        found[side] = answer
    return found


def _known(counts: Mapping[str, int | None]) -> dict[str, int]:
    return {side: count for side, count in counts.items() if count is not None}


def table(found: Launches) -> Table:
    """The counts, the most frequent operator first."""
    shown = Table(title=f"{found.network}, {found.method}, batch 1", show_footer=True)
    times = ", ".join(f"{ratio:.2f} ×" for ratio in ratios(asdict(found)).values())
    shown.add_column(f"operator, on {found.provider}", f"nodes; {times}")
    for side, nodes in found.nodes.items():
        shown.add_column(side, str(sum(nodes.values())), justify="right")
    most: Counter[str] = Counter()
    for nodes in found.nodes.values():
        most |= Counter(nodes)
    for operator, _ in most.most_common():
        shown.add_row(operator, *(str(n.get(operator, "")) for n in found.nodes.values()))
    shown.add_section()
    for name, counts in (
        ("kernels launched", found.kernels),
        ("regions of TensorRT-RTX", found.layers),
    ):
        shown.add_row(name, *(str(counts.get(side, "not known")) for side in found.nodes))
    return shown
