"""What ONNX Runtime's CUDA provider does with explain graphs, asked without a GPU."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from onnxplain.runtime.fake_cuda import build
from onnxplain.runtime.sessions.onnx_runtime.cuda import missing_cuda
from onnxplain.runtime.sessions.onnx_runtime.options import (
    cuda_options,
    inference_session,
    session_options,
)
from onnxplain.runtime.sessions.onnx_runtime.placement import placement

Counts: TypeAlias = dict[str, int]

_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Claims:
    """What became of one graph.

    Attributes:
        nodes: operator → nodes of the optimised graph.
        on_processor: operator → nodes that leave the GPU's provider.
        copies: nodes that copy a tensor from the GPU or to it, for which a run stops.
        graph_refused: why no session with CUDA graphs was made; None if one was.
        kernels: launched by one run of one image; None where they are not, or cannot be, counted.
    """

    nodes: Counter[str]
    on_processor: Counter[str]
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

    One process answers as long as it lives. A graph is asked for as it is drawn from `graphs`, and
    the next is drawn when the answer is taken: one file can be written again and again.

    Args:
        environment: of a process that sees the fake CUDA (`surroundings`).
        run: whether to count the kernels of a run too, which only the fake does.
    """
    process = None
    try:
        for path, precision in graphs:
            if process is None:
                process = _process(environment, run)
            question = json.dumps([str(path), precision])
            line = _exchanged(process, question)
            if line is None:
                yield f"the process ended with {process.wait()}"
                process = None
                continue
            found = json.loads(line)
            yield found if isinstance(found, str) else _claims(**found)
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _claims(nodes: Counts, on_processor: Counts, **others: Any) -> Claims:
    return Claims(Counter(nodes), Counter(on_processor), **others)


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a process that sees CUDA: a GPU's, or the fake, built into `folder`.

    Raises:
        BackendError: there is no GPU, and the fake cannot be built.
    """
    return dict(os.environ) if missing_cuda() is None else build(folder)


def _process(environment: Mapping[str, str], run: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(int(run))],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _exchanged(process: subprocess.Popen[str], question: str) -> str | None:
    """The process's answer; None if it ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        print(question, file=process.stdin, flush=True)
    except BrokenPipeError:
        return None
    return process.stdout.readline() or None


def _ask(path: Path, precision: str, run: bool) -> dict[str, Any] | str:
    def cuda(graphs: bool) -> list[Any]:
        return [(_PROVIDER, cuda_options(precision, 0, graphs, None)), "CPUExecutionProvider"]

    refused = None
    try:
        try:
            found = placement(path, precision, cuda(graphs=True))
        except Exception as error:
            refused = str(error)
            found = placement(path, precision, cuda(graphs=False))
        launched = None
        if run and _is_fake():
            session = inference_session(path, precision, session_options(), cuda(graphs=False))
            # A library with CUDA's runtime linked into it, as kernels/ has it, meets no fake.
            with suppress(Exception):
                launched = kernels(session)
    except Exception as error:
        return str(error)
    return vars(Claims(found.nodes, found.on_processor, found.copies, refused, launched))


def _is_fake() -> bool:
    return hasattr(ctypes.CDLL(None), "fake_cuda_calls")


def kernels(session: onnxruntime.InferenceSession) -> int:
    """How many one run launches, after a first that allocates."""
    count = ctypes.CDLL(None).fake_cuda_calls
    count.restype = ctypes.c_long
    feeds = {}
    for port in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        feeds[port.name] = np.zeros(shape, _NUMPY.get(port.type, np.float32))
    session.run(None, feeds)
    before = count(b"kernel")
    session.run(None, feeds)
    return int(count(b"kernel") - before)


_NUMPY = {"tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}


def _main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # ONNX Runtime prints what it cannot load
    onnxruntime.preload_dlls(cudnn=not _is_fake())
    for question in sys.stdin:
        path, precision = json.loads(question)
        answer = json.dumps(_ask(Path(path), precision, run=sys.argv[1] == "1"))
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    _main()
