"""How many nodes and kernels an explanation takes beside its forward pass. No machine decides that.

A GPU that computes one image waits for launches, which no count of multiply-adds shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from rich.table import Table

from onnxplain.bench.engines import compiled_layers
from onnxplain.errors import BackendError
from onnxplain.export import export
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime.fake_cuda.ask import Claims, claims, surroundings
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

SIDES = ("forward", "explain")
_PROCESSOR = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Launches:
    """The counts of one network, each {"forward": …, "explain": …}.

    Attributes:
        provider: "cuda", where it can be asked, or "cpu".
        nodes: operator → nodes, after ONNX Runtime's own optimisation for that provider.
        kernels: launched by one run of one image; None where they are not counted.
        layers: regions that TensorRT-RTX compiles the graph to; None where it is not installed.
    """

    network: str
    method: str
    provider: str
    nodes: Mapping[str, Mapping[str, int]]
    kernels: Mapping[str, int] | None
    layers: Mapping[str, int] | None

    @property
    def ratio(self) -> float:
        """Nodes of the explanation, in those of its forward pass."""
        forward, explain = (sum(self.nodes[side].values()) for side in SIDES)
        return explain / forward


def launches(network: str, method: str, source: Any = None) -> Launches:
    """Export a network, untrained, and count.

    Args:
        source: what to export under that name; None for the network of that name.

    Raises:
        OnnxplainError: it cannot be exported, or ONNX Runtime does not say.
    """
    with TemporaryDirectory(prefix="onnxplain-launches-") as text:
        folder = Path(text)
        explain, forward = folder / "explain.onnx", folder / "forward.onnx"
        export(network if source is None else source, explain, method=method, weights="none")
        onnx.save(forward_proto(explain), forward)
        paths = dict(zip(SIDES, (forward, explain), strict=True))
        layers = {side: compiled_layers(path) for side, path in paths.items()}
        asked = on_cuda(paths, folder)
        nodes = {
            side: asked[side].nodes if asked else placement(path, "float32", _PROCESSOR).nodes
            for side, path in paths.items()
        }
    kernels = {side: claim.kernels for side, claim in (asked or {}).items()}
    return Launches(
        network, method, "cuda" if asked else "cpu", nodes, _whole(kernels), _whole(layers)
    )


def on_cuda(paths: Mapping[str, Path], folder: Path) -> dict[str, Claims] | None:
    """What the CUDA provider does with the graphs, on a GPU or without; None where it is missing.

    Raises:
        BackendError: no session is made of one.
    """
    try:
        environment = surroundings(folder)
    except BackendError:
        return None
    answers = claims([(path, "float32") for path in paths.values()], environment, run=True)
    found = {}
    for side, answer in zip(paths, answers, strict=True):
        if isinstance(answer, str):
            raise BackendError(answer)
        found[side] = answer
    return found


def _whole(counts: Mapping[str, int | None]) -> dict[str, int] | None:
    """The counts, if every side has one."""
    known = {side: count for side, count in counts.items() if count is not None}
    return known if len(known) == len(SIDES) else None


def table(found: Launches) -> Table:
    """The counts, the most frequent operator first."""
    shown = Table(title=f"{found.network}, {found.method}, batch 1", show_footer=True)
    totals = {side: sum(found.nodes[side].values()) for side in SIDES}
    shown.add_column(f"operator, on {found.provider}", f"nodes; {found.ratio:.2f} ×")
    for side in SIDES:
        shown.add_column(side, str(totals[side]), justify="right")
    for operator in sorted(found.nodes["explain"], key=lambda op: -found.nodes["explain"][op]):
        shown.add_row(operator, *(str(found.nodes[side].get(operator, "")) for side in SIDES))
    shown.add_section()
    for name, counts in (
        ("kernels launched", found.kernels),
        ("regions of TensorRT-RTX", found.layers),
    ):
        shown.add_row(name, *(str(counts[side]) if counts else "not known" for side in SIDES))
    return shown
