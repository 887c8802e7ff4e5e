"""Whether TensorRT-RTX's ahead-of-time compiler takes a graph; no GPU is needed to find out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from onnxplain.errors import BackendError

_REFUSED = "refused: "
_SM = 89
_SECONDS = 600.0


def accepts(path: str | os.PathLike[str], seconds: float = _SECONDS) -> str | None:
    """Build an explain graph for one kind of GPU, and throw the engine away.

    In a process of its own with at most three quarters of the machine's memory, so that neither a
    crash of the compiler nor a build without end stops a sweep over many graphs.

    Returns:
        None if it builds, else the reason why not.

    Raises:
        BackendError: the package `tensorrt_rtx` is not installed.
    """
    from onnxplain.runtime.sessions.tensorrt.package import load_package

    load_package("tensorrt-rtx")
    child = [sys.executable, "-m", "onnxplain.bench.engines", os.fspath(path)]
    try:
        done = subprocess.run(child, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"it was still compiling after {seconds:g} s"
    for line in done.stdout.splitlines():
        if line.startswith(_REFUSED):
            return line.removeprefix(_REFUSED)
    if done.returncode < 0:
        return f"the compiler crashed ({signal.Signals(-done.returncode).name})"
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["without a word"]
        return f"the compiler failed: {said[-1]}"
    return None


def _main(path: Path) -> None:
    import resource

    from onnxplain.runtime.sessions.tensorrt import build_engine

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        build_engine(path, sm=[_SM], keep=False)
    except BackendError as error:
        print(_REFUSED + " ".join(str(error).split()), flush=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
