"""What ONNX Runtime's CUDA provider does with explain graphs, asked without a GPU."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onnxplain.runtime.sessions.onnx_runtime.options import (
    cuda_options,
    inference_session,
    session_options,
)
from onnxplain.runtime.sessions.onnx_runtime.placement import placement

_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Claims:
    """What became of one graph.

    Attributes:
        nodes: operator → nodes of the optimised graph.
        on_processor: operator → nodes that leave the GPU's provider.
        copies: nodes that copy a tensor from the GPU or to it, for which a run stops.
        graph_refused: why no session with CUDA graphs was made; None if one was.
        kernels: launched by one run of one image.
    """

    nodes: dict[str, int]
    on_processor: dict[str, int]
    copies: int
    graph_refused: str | None
    kernels: int | None = None

    @property
    def whole(self) -> bool:
        """Whether no run leaves the GPU."""
        return not self.copies and self.graph_refused is None


def claims(
    graphs: Iterable[tuple[Path, str]], environment: Mapping[str, str], run: bool = False
) -> Iterator[Claims | str]:
    """Of each graph and precision; or why no session was made of it.

    Args:
        environment: of a process that sees the fake CUDA (`fake_cuda.build`).
        run: whether to count the kernels of a run too.
    """
    jobs = [[str(path), precision] for path, precision in graphs]
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(jobs), str(int(run))],
        env=dict(environment),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    for line in lines:
        found = json.loads(line)
        yield found if isinstance(found, str) else Claims(**found)
    for _ in jobs[len(lines) :]:
        yield f"the process ended with {done.returncode}: {done.stderr.strip()[-300:]}"


def _ask(path: Path, precision: str, run: bool) -> dict[str, Any] | str:
    def cuda(graphs: bool) -> list[Any]:
        return [(_PROVIDER, cuda_options(precision, 0, graphs, None)), "CPUExecutionProvider"]

    try:
        found = placement(path, precision, cuda(graphs=False))
    except Exception as error:
        return str(error)
    refused = None
    try:
        session = inference_session(path, precision, session_options(), cuda(graphs=True))
    except Exception as error:
        refused = str(error)
        session = inference_session(path, precision, session_options(), cuda(graphs=False))
    launched = kernels(session) if run else None
    return asdict(
        Claims(dict(found.nodes), dict(found.on_processor), found.copies, refused, launched)
    )


def kernels(session: onnxruntime.InferenceSession) -> int:
    """How many one run launches, after a first that allocates."""
    count = ctypes.CDLL(None).fake_cuda_calls
    count.restype = ctypes.c_long
    feeds = {}
    for port in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        feeds[port.name] = np.zeros(shape, _NUMPY.get(port.type, np.float32))
    off = onnxruntime.RunOptions()
    off.add_run_config_entry("gpu_graph_id", "-1")
    session.run(None, feeds, off)
    before = count(b"kernel")
    session.run(None, feeds, off)
    return int(count(b"kernel") - before)


_NUMPY = {"tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}


def _main() -> None:
    onnxruntime.preload_dlls(cudnn=False)
    jobs, run = json.loads(sys.argv[1]), sys.argv[2] == "1"
    for path, precision in jobs:
        print(json.dumps(_ask(Path(path), precision, run)), flush=True)


if __name__ == "__main__":
    _main()
