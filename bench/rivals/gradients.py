"""A network's gradient by every package: the file, its numbers in float64, its time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime
import torch

from onnxplain.bench.rivals.networks import example, write
from onnxplain.bench.rivals.packages import NAMES, Package, packages
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.parity import Parity
from onnxplain.runtime.sessions.onnx_runtime.options import session_options
from onnxplain.timing import ratio, rounds

Array = npt.NDArray[Any]
Record = dict[str, Any]
FORWARD = "forward"


def measure(name: str, folder: Path, repeats: int, threads: int) -> Record:
    """Both packages' files of a network, for a batch of one; and whether an open batch is taken.

    Numbers are those of the files evaluated in float64, beside PyTorch's in float64: in float32, a
    gate may open that in float64 is shut. Times are on ONNX Runtime's CPU provider.
    """
    module, inputs = example(name)
    fixed, opened = folder / "fixed.onnx", folder / "open.onnx"
    write(module, inputs, fixed, open_batch=False)
    write(module, inputs, opened, open_batch=True)
    one = tuple(x[:1] for x in inputs)
    feeds = {"x" if i == 0 else f"x{i}": x.numpy() for i, x in enumerate(one)}
    seed, expected = _expected(module, one)
    calls: dict[str, Callable[[], object]] = {
        FORWARD: partial(session(fixed, threads).run, ["y"], feeds)
    }
    rows = []
    for package in packages():
        made = folder / f"{package.name}.onnx"
        row: Record = {"by": package.name, "open batch": _taken(package, opened, made)}
        rows.append(row)
        start = time.perf_counter()
        try:
            package.write(fixed, made)
        except Exception as error:
            row["problem"] = said(error)
            continue
        given = {**feeds, package.seed: package.seed_of(seed)}
        row |= {"seconds to make": time.perf_counter() - start, **_size(made)}
        found = evaluate_in_float64(made, given, [package.gradient])[package.gradient]
        row["relative_l2"] = Parity.of(package.gradient_of(found), expected).relative_l2
        calls[package.name] = partial(session(made, threads).run, [package.gradient], given)
    taken = rounds(calls, repeats, warmup=2)
    for row in rows:
        if (samples := taken.get(row["by"])) is not None:
            row["median"] = median(samples)
            row["÷ forward"] = ratio(samples, taken[FORWARD])
            row["÷ onnxplain"] = ratio(samples, taken[NAMES[0]])
    forward = {**_size(fixed), "median": median(taken[FORWARD])}
    return {"network": name, "rounds": repeats, FORWARD: forward, "rows": rows}


def _expected(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Array, Array]:
    """A cotangent of the output, float32, and the gradient for it by PyTorch in float64."""
    wide = copy.deepcopy(module).double()
    x, *others = (each.double() if each.is_floating_point() else each for each in inputs)
    x.requires_grad_()
    y = wide(x, *others)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(y, x, seed.double())
    return seed.numpy(), gradient.numpy()


def _taken(package: Package, source: Path, path: Path) -> str | None:
    """Why a package does not take a file; None if it does."""
    try:
        package.write(source, path)
    except Exception as error:
        return said(error)
    return None


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _size(path: Path) -> Mapping[str, int]:
    return {"nodes": len(onnx.load(path).graph.node), "bytes": path.stat().st_size}


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model, session_options(threads), providers=["CPUExecutionProvider"]
    )
