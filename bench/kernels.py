"""How near the Triton kernels come to the memory's speed: `python -m onnxplain.bench.kernels`.

Each kernel at the sizes of ResNet-50's first layers: the time of a call with cold caches, the bytes
that it must move (`onnxplain.kernels.roofline`) per second, that as a part of the bandwidth of a
copy measured beside it, and how many times faster it is than the same formula in plain PyTorch.
Without a GPU, `--interpret` runs all of it on the CPU at tiny sizes; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.bench.latency import machine
from onnxplain.kernels import roofline
from onnxplain.kernels.pool import Pool
from onnxplain.reference.pools import windows

T = 0.3
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
POOLS = {
    "3 × 3, stride 2": Pool((3, 3), (2, 2), (1, 1), (1, 1)),
    "2 × 2, stride 2": Pool((2, 2), (2, 2), (1, 1), (0, 0)),
    "3 × 3, stride 1": Pool((3, 3), (1, 1), (1, 1), (1, 1)),
}


@dataclass(frozen=True)
class Measurement:
    """`seconds` per call; `bandwidth` in bytes/s; `of_copy` its part of a copy's bandwidth.

    `plain` is the seconds of the formula in plain PyTorch, `error` the largest difference from it
    in float32, relative to its largest number.
    """

    kernel: str
    dtype: str
    bytes: int
    seconds: float
    bandwidth: float
    of_copy: float
    plain: float
    error: float


@dataclass(frozen=True)
class Work:
    """A kernel's call, the formula in plain PyTorch on the same tensors, and the bytes to move."""

    name: str
    run: Callable[[], tuple[Tensor, ...]]
    formula: Callable[[torch.dtype], tuple[Tensor, ...]]
    bytes: int


def measure(device: str, shape: tuple[int, int, int, int]) -> Iterator[Measurement]:
    """Time every kernel on tensors of `shape` [N, C, H, W].

    Raises:
        AssertionError: a kernel's result is not that of its formula.
    """
    timed = _cuda_seconds if device == "cuda" else _wall_seconds
    source = torch.randn(shape, device=device)
    copy = 2 * source.numel() * source.itemsize / timed(source.clone)
    for dtype in DTYPES:
        for work in _works(source.to(dtype)):
            pairs = zip(work.run(), work.formula(torch.float32), strict=True)
            error = max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in pairs)
            assert error < TOLERANCE[dtype], f"{work.name}, {dtype}: off by {error:.1e}"
            seconds = timed(work.run)
            yield Measurement(
                kernel=work.name,
                dtype=str(dtype).removeprefix("torch."),
                bytes=work.bytes,
                seconds=seconds,
                bandwidth=work.bytes / seconds,
                of_copy=work.bytes / seconds / copy,
                plain=timed(partial(work.formula, dtype)),
                error=error,
            )


def _works(z: Tensor) -> Iterator[Work]:
    from onnxplain.kernels.torch_ops import relu_soft_gate, soft_gate

    g = torch.randn_like(z)
    n, size = z.numel(), z.itemsize
    yield Work(
        "SoftGate",
        lambda: (soft_gate(z, g, T),),
        lambda dtype: (g.to(dtype) * torch.sigmoid(z.to(dtype) / T),),
        roofline.soft_gate_bytes(n, size),
    )
    yield Work(
        "ReluSoftGate",
        lambda: relu_soft_gate(z, T),
        lambda dtype: (z.to(dtype).relu(), torch.sigmoid(z.to(dtype) / T)),
        roofline.relu_soft_gate_bytes(n, size),
    )
    for name, pool in POOLS.items():
        y = functional.max_pool2d(z, pool.kernel, pool.strides, pool.before)
        cotangent = torch.randn_like(y)
        yield Work(
            f"SoftMaxPoolGrad, {name}",
            partial(_pool_by_kernel, z, cotangent, pool),
            partial(_pool_by_formula, z, cotangent, pool),
            roofline.soft_max_pool_grad_bytes(pool, n, y.numel(), size),
        )


def _pool_by_kernel(x: Tensor, g: Tensor, pool: Pool) -> tuple[Tensor, ...]:
    from onnxplain.kernels.torch_ops import soft_max_pool_grad

    return (soft_max_pool_grad(x, g, pool, T),)


def _pool_by_formula(x: Tensor, g: Tensor, pool: Pool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    leaf = x.to(dtype).detach().requires_grad_()
    window = windows(leaf, g.shape, pool.kernel, pool.strides, pool.before, pool.dilations)
    s = (torch.softmax(window / T, dim=-1) * window).sum(dim=-1)
    return torch.autograd.grad(s, leaf, g.to(dtype))


def _cuda_seconds(run: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, return_mode="median")) / 1000


def _wall_seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m onnxplain.bench.kernels", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--batch", type=int, default=32, help="images [%(default)s]")
    parser.add_argument("--interpret", action="store_true", help="run on the CPU, tiny")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args(arguments)
    if not given.interpret and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA GPU here, so nothing to measure; --interpret runs the kernels on the CPU, tiny"
        )
    if given.interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which it is not yet
    device, shape = (
        ("cpu", (1, 2, 6, 8)) if given.interpret else ("cuda", (given.batch, 64, 112, 112))
    )
    gpu = "interpreted on the CPU" if given.interpret else torch.cuda.get_device_name()
    print(f"{gpu}, tensors {list(shape)}")
    print(f"{'kernel':34}{'dtype':10}{'µs':>10}{'GB/s':>8}{'of copy':>9}{'× plain':>9}{'error':>9}")
    rows = []
    for row in measure(device, shape):
        rows.append(row)
        print(
            f"{row.kernel:34}{row.dtype:10}{row.seconds * 1e6:10.1f}{row.bandwidth / 1e9:8.0f}"
            f"{row.of_copy:9.0%}{row.plain / row.seconds:9.1f}{row.error:9.1e}",
            flush=True,
        )
    if given.json is not None:
        report = {"machine": machine() | {"gpu": gpu}, "kernels": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
