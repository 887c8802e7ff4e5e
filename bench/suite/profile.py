"""Where an explanation's time goes: by operator, beside the forward pass and the floor."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnxruntime
from rich.table import Table

from onnxplain.bench.suite.job import Job, prepare
from onnxplain.bench.suite.record import KERNELS
from onnxplain.contract.explain import IMAGE, TARGET, Metadata
from onnxplain.files import scratch
from onnxplain.reference.forward import forward_proto, write_forward
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.sessions import usable
from onnxplain.runtime.sessions.onnx_runtime.kernels import library
from onnxplain.runtime.sessions.onnx_runtime.options import inference_session, session_options
from onnxplain.runtime.sessions.openvino.compile import prepared
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.one_image import one_image
from onnxplain.runtime.sessions.openvino.options import configuration

RUNS = 25
PRODUCTS = (
    *("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "FullyConnected"),
)
"""The operators that multiply and add, by ONNX Runtime's names and OpenVINO's."""

Sums: TypeAlias = dict[tuple[str, str], float]
"""(operator, "forward" or "backward" or "between") → milliseconds of one explanation."""


@dataclass(frozen=True)
class Profile:
    """The milliseconds of one explanation on one engine, and its network's multiply-adds.

    Each node's are the least of its runs, in which nothing else on the machine had a part.

    Attributes:
        alone: operator → milliseconds of the forward pass alone, run in turns with the explanation;
            None where it is not measured.
    """

    network: str
    engine: str
    milliseconds: Mapping[tuple[str, str], float]
    metadata: Metadata
    alone: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON: "explain" is operator → side → milliseconds, "forward" is `alone`."""
        explain: dict[str, dict[str, float]] = {}
        for (operator, side), taken in self.milliseconds.items():
            explain.setdefault(operator, {})[side] = round(taken, 4)
        alone = {operator: round(taken, 4) for operator, taken in (self.alone or {}).items()}
        counts = dict(self.metadata.multiply_adds)
        return {
            "network": self.network,
            "engine": self.engine,
            "multiply_adds": counts,
            "forward": alone,
            "explain": explain,
        }


def profiled(network: str, threads: int) -> list[Profile]:
    """A network's explanation at a batch of 1 on each engine of this processor, node by node."""
    with scratch() as folder:
        prepare(network, folder, several=False, maps=False)
        job = Job(network, 1, threads, folder)
        nodes = forward_proto(job.graph()).graph.node
        forward = {name for node in nodes for name in (node.name, *node.output)}

        def side(node: str) -> str:
            if "pullback" in node:
                return "backward"
            return "forward" if any(name in forward for name in _names(node)) else "between"

        metadata = Metadata.from_props(read_metadata(job.graph()))
        profiles = [
            Profile(network, engine, sums, metadata, alone)
            for engine, sums, alone in _onnx_runtime(job, side)
        ]
        for precision in ("float32", "bfloat16"):
            if precision in usable("openvino"):
                sums = _openvino(job, precision, side)
                profiles.append(Profile(network, f"openvino {precision}", sums, metadata))
        return profiles


def _names(node: str) -> list[str]:
    """What a runtime may have made a node's name of: its own or its output's, and more behind."""
    return [node, node.removesuffix("_nchwc"), node.partition("/")[0]]


def _feeds(job: Job) -> dict[str, Any]:
    return {IMAGE: job.images, TARGET: job.targets}


def _onnx_runtime(
    job: Job, side: Callable[[str], str]
) -> Iterator[tuple[str, Sums, dict[str, float]]]:
    """The engine; the explanation; the forward pass alone: with and without the fused operations.

    All run in turns, so that what else the machine does meets all alike.
    """
    engine = "cpu float32"
    alone = write_forward(job.graph(), job.folder / "forward.onnx")
    paths = {"forward": alone, engine: job.graph()}
    if library() is not None:
        paths[f"{engine}{KERNELS}"] = job.graph(kernels=True)
    sessions = {name: _profiling(path, job) for name, path in paths.items()}
    for _ in range(RUNS):
        for session in sessions.values():
            given = {port.name for port in session.get_inputs()}
            session.run(None, {name: x for name, x in _feeds(job).items() if name in given})
    nodes = {name: _by_node(session) for name, session in sessions.items()}
    forward = _by_side(nodes.pop("forward"), lambda node: "forward")
    of_operators = {operator: taken for (operator, _), taken in forward.items()}
    for name, times in nodes.items():
        yield name, _by_side(times, side), of_operators


def _profiling(path: Path, job: Job) -> onnxruntime.InferenceSession:
    options = session_options(job.threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    return inference_session(path, "float32", options, ["CPUExecutionProvider"])


def _by_node(session: onnxruntime.InferenceSession) -> dict[tuple[str, str], float]:
    """(operator, node) → milliseconds, the least of the runs."""
    events = json.loads(Path(session.end_profiling()).read_text())
    taken: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            taken.setdefault((event["args"]["op_name"], node), []).append(event["dur"] / 1e3)
    return _least(taken)


def _openvino(job: Job, precision: str, side: Callable[[str], str]) -> Sums:
    config = {**configuration(precision, "latency", job.threads), "PERF_COUNT": "YES"}
    shapes = one_image(read_ports(job.graph())[0]) if job.batch == 1 else None
    model = prepared(core().read_model(job.graph()), precision, shapes)
    compiled = core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(RUNS):
        request.infer(_feeds(job))
        for node in request.profiling_info:
            times = taken.setdefault((node.node_type, node.node_name), [])
            times.append(node.real_time.total_seconds() * 1e3)
    return _by_side(_least(taken), side)


def _least(taken: Mapping[tuple[str, str], list[float]]) -> dict[tuple[str, str], float]:
    return {node: min(times) for node, times in taken.items()}


def _by_side(times: Mapping[tuple[str, str], float], side: Callable[[str], str]) -> Sums:
    sums: Sums = defaultdict(float)
    for (operator, node), taken in times.items():
        sums[operator, side(node)] += taken
    return dict(sums)


def table(profile: Profile) -> Table:
    """A profile as a table, its last line the floor: backward products as fast as forward ones."""
    times = profile.milliseconds
    shown = Table(title=f"{profile.network} on {profile.engine}, batch 1", show_footer=True)
    total = sum(times.values())
    counts = profile.metadata.multiply_adds
    products = sum(times.get((op, "forward"), 0.0) for op in PRODUCTS)
    floor = products * counts["explain"] / counts["forward"]
    shown.add_column("operator", "all; floor")
    for name in ("forward", "backward", "between"):
        side = sum(t for (_, s), t in times.items() if s == name)
        shown.add_column(f"{name} ms", f"{side:.1f}", justify="right")
    shown.add_column("share", f"{floor:.1f} ms of {total:.1f}", justify="right")
    if profile.alone is not None:
        shown.add_column("alone ms", f"{sum(profile.alone.values()):.1f}", justify="right")
    operators = {op for op, _ in times}
    by_time = {op: [times.get((op, s), 0.0) for s in _SIDES] for op in operators}
    for op, sides in sorted(by_time.items(), key=lambda item: -sum(item[1])):
        if (share := sum(sides) / total) >= _SHOWN:
            cells = [f"{t:.2f}" if t else "" for t in sides]
            if profile.alone is not None:
                cells.append(f"{t:.2f}" if (t := profile.alone.get(op, 0.0)) else "")
            shown.add_row(op, *cells[:3], f"{share:.1%}", *cells[3:])
    return shown


_SIDES = ("forward", "backward", "between")
_SHOWN = 0.002
"""The least share of the time that an operator is shown with."""
