"""Whether TensorRT-RTX's ahead-of-time compiler takes a graph; no GPU is needed to find out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    child = [sys.executable, "-P", "-m", "onnxplain.bench.engines", os.fspath(path)]
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


def compiled_layers(path: str | os.PathLike[str], seconds: float = _SECONDS) -> int | None:
    """How many regions TensorRT-RTX makes of a graph whose open dimensions are batches.

    Its log, with all details, tells. Fewer are better: each is one compiled whole, and what is
    between two of them goes through the GPU's memory.

    Returns:
        None if the package is not installed, or does not compile the graph.
    """
    child = [sys.executable, "-P", "-m", "onnxplain.bench.engines", "--layers", os.fspath(path)]
    try:
        done = subprocess.run(child, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    found = re.search(r"After Myelin optimization: (\d+) layers", done.stdout)
    return int(found[1]) if found else None


def _log(path: Path) -> None:
    """Print the compiler's whole log."""
    import tensorrt_rtx as trt

    class Printing(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            print(message)

    logger = Printing()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise SystemExit(1)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for i in range(network.num_inputs):
        port = network.get_input(i)
        if -1 in tuple(port.shape):
            sizes = ([n if size == -1 else size for size in port.shape] for n in (1, 1, 8))
            profile.set_shape(port.name, *sizes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{_SM}"), 0)
    builder.build_serialized_network(network, config)


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
    if sys.argv[1] == "--layers":
        _log(Path(sys.argv[2]))
    else:
        _main(Path(sys.argv[1]))
