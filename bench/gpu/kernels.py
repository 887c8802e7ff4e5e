"""The fused operations against their bodies in standard operators, by the memory that they move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.building import Builder
from onnxplain.files import scratch
from onnxplain.kernels import bodies
from onnxplain.kernels.calls import add_functions
from onnxplain.kernels.functions import KernelBuilder
from onnxplain.kernels.windows import Window
from onnxplain.runtime.sessions import Session, open_session, usable
from onnxplain.runtime.sessions.onnx_runtime.kernels import library
from onnxplain.timing import interleaved

CHANNELS, SIZE, T = 64, (112, 112), 0.3  # those of a ResNet's stem
DTYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}
POOLED = (56, 56)
WINDOW = Window(
    SIZE, POOLED, (3, 3), (2, 2), dilations=(1, 1), before=(1, 1), after=(0, 0), slack=(0, 0)
)


@dataclass(frozen=True)
class Operation:
    """A fused operation of two tensors [batch, CHANNELS, …] whose result is like the first."""

    body: Any
    cotangent: tuple[int, int]
    window: Window | None = None

    def model(self, batch: int, dtype: str, calls: bool) -> ir.Model:
        shapes = {"z": SIZE, "g": self.cotangent}
        inputs = [
            ir.val(name, DTYPES[dtype], [batch, CHANNELS, *size]) for name, size in shapes.items()
        ]
        graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name="operation")
        builder = KernelBuilder(graph) if calls else Builder(graph)
        windows = () if self.window is None else (self.window,)
        result = self.body(builder.op, *inputs, *windows, T)
        result.name, result.dtype, result.shape = "out", DTYPES[dtype], inputs[0].shape
        graph.outputs.append(result)
        model = ir.Model(graph, ir_version=10)
        if isinstance(builder, KernelBuilder):
            add_functions(model, builder)
        return model


OPERATIONS = {
    "SoftGate": Operation(bodies.soft_gate, SIZE),
    "NormalGate": Operation(bodies.normal_gate, SIZE),
    "SoftMaxPoolGrad": Operation(bodies.soft_max_pool_grad, POOLED, WINDOW),
    "WeightedPoolGrad": Operation(bodies.weighted_pool_grad, POOLED, WINDOW),
}


def kernel_records(provider: str, batches: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """A record for each operation, dtype and batch, with the library that is installed.

    Returns:
        "operation", "dtype", "batch", "bytes" (read and written at the least), the median seconds
        "body" and "kernel", "GB/s" (of a call of the kernel), and "error", their largest
        difference in relation to the largest result; or "problem".
    """
    if library() is None:
        yield {"problem": "onnxplain-kernels is not installed"}
        return
    for name, operation in OPERATIONS.items():
        for dtype in (dtype for dtype in DTYPES if dtype in usable(provider)):
            for batch in batches:
                found = {"operation": name, "dtype": dtype, "batch": batch}
                try:
                    found |= _measured(operation, dtype, batch, provider, rounds)
                except Exception as error:  # whatever a runtime raises that lacks an operator
                    found["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                yield found


def _measured(
    operation: Operation, dtype: str, batch: int, provider: str, rounds: int
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.normal(size=[batch, CHANNELS, *size]).astype(dtype)
        for name, size in (("z", SIZE), ("g", operation.cotangent))
    }
    with scratch() as folder:
        runs = {}
        for way in ("body", "kernel"):
            path = folder / f"{way}.onnx"
            ir.save(operation.model(batch, dtype, calls=way == "kernel"), path)
            runs[way] = _run(open_session(path, provider), feeds, provider)
        results = {way: run() for way, run in runs.items()}
        timings = interleaved(runs, rounds, warmup=3)
    body, kernel = (
        np.asarray(r.cpu() if hasattr(r, "cpu") else r, np.float64) for r in results.values()
    )
    moved = feeds["g"].nbytes + 2 * feeds["z"].nbytes
    return {
        "bytes": moved,
        **{way: timing.median for way, timing in timings.items()},
        "GB/s": moved / timings["kernel"].median / 1e9,
        "error": float(abs(kernel - body).max() / abs(body).max()),
    }


def _run(session: Session, feeds: dict[str, Any], provider: str) -> Any:
    if provider == "cpu":
        return lambda: session.run(feeds)["out"]
    import torch

    given = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
    return partial(_on_device, session, given)


def _on_device(session: Session, given: dict[str, Any]) -> Any:
    import torch

    result = session.run_on_device(given)["out"]
    torch.cuda.synchronize()
    return torch.utils.dlpack.from_dlpack(result)
