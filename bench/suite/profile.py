"""Where an explanation's time goes: by operator, forward and backward, against the floor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
from rich.table import Table

from onnxplain.bench.suite.job import Job, prepare
from onnxplain.contract.explain import IMAGE, TARGET, Metadata
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.sessions import usable
from onnxplain.runtime.sessions.onnx_runtime.options import session_options
from onnxplain.runtime.sessions.openvino.compile import prepared
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.one_image import one_image
from onnxplain.runtime.sessions.openvino.options import configuration

RUNS, WARMUP = 20, 5
PRODUCTS = (
    *("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "FullyConnected"),
)
"""The operators that multiply and add, by ONNX Runtime's names and OpenVINO's."""

Sums = Counter[tuple[str, str]]
"""(operator, "forward" or "backward" or "between") → milliseconds of one explanation."""


@dataclass(frozen=True)
class Profile:
    """The milliseconds of one explanation on one engine, and its network's multiply-adds."""

    network: str
    engine: str
    milliseconds: Mapping[tuple[str, str], float]
    metadata: Metadata


def profiled(network: str, threads: int) -> list[Profile]:
    """A network's explanation at a batch of 1 on each engine of this processor, node by node."""
    with TemporaryDirectory(prefix="onnxplain-profile-") as folder:
        prepare(network, Path(folder), several=False, maps=False)
        job = Job(network, 1, threads, Path(folder))
        nodes = forward_proto(job.graph()).graph.node
        forward = {name for node in nodes for name in (node.name, *node.output)}

        def side(node: str) -> str:
            if "pullback" in node:
                return "backward"
            return "forward" if any(name in forward for name in _names(node)) else "between"

        metadata = Metadata.from_props(read_metadata(job.graph()))
        profiles = [("cpu float32", _onnx_runtime(job, side))]
        for precision in ("float32", "bfloat16"):
            if precision in usable("openvino"):
                profiles.append((f"openvino {precision}", _openvino(job, precision, side)))
        return [Profile(network, engine, sums, metadata) for engine, sums in profiles]


def _names(node: str) -> list[str]:
    """What a runtime may have made a node's name of: its own or its output's, and more behind."""
    return [node, node.removesuffix("_nchwc"), node.partition("/")[0]]


def _feeds(job: Job) -> dict[str, Any]:
    return {IMAGE: job.images, TARGET: job.targets}


def _onnx_runtime(job: Job, side: Callable[[str], str]) -> Sums:
    options = session_options(job.threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(job.folder / "profile")
    session = onnxruntime.InferenceSession(job.graph(), options)
    for _ in range(WARMUP + RUNS):
        session.run(None, _feeds(job))
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    sums: Sums = Counter()
    for event in kernels[len(kernels) // (WARMUP + RUNS) * WARMUP :]:
        node = event["name"].removesuffix("_kernel_time")
        sums[event["args"]["op_name"], side(node)] += event["dur"] / 1e3 / RUNS
    return sums


def _openvino(job: Job, precision: str, side: Callable[[str], str]) -> Sums:
    config = {**configuration(precision, "latency", job.threads), "PERF_COUNT": "YES"}
    shapes = one_image(read_ports(job.graph())[0]) if job.batch == 1 else None
    model = prepared(core().read_model(job.graph()), precision, shapes)
    compiled = core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    sums: Sums = Counter()
    for run in range(WARMUP + RUNS):
        request.infer(_feeds(job))
        for node in request.profiling_info if run >= WARMUP else ():
            taken = node.real_time.total_seconds() * 1e3 / RUNS
            sums[node.node_type, side(node.node_name)] += taken
    return sums


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
    operators = {op for op, _ in times}
    by_time = {op: [times.get((op, s), 0.0) for s in _SIDES] for op in operators}
    for op, sides in sorted(by_time.items(), key=lambda item: -sum(item[1])):
        if (share := sum(sides) / total) >= _SHOWN:
            shown.add_row(op, *(f"{t:.2f}" if t else "" for t in sides), f"{share:.1%}")
    return shown


_SIDES = ("forward", "backward", "between")
_SHOWN = 0.002
"""The least share of the time that an operator is shown with."""
