"""The kernels compiled ahead of time: PTX and machine code with what a launch needs, without a GPU.

It is what a TensorRT plugin embeds and what `cuModuleLoadData` loads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import BackendError, InputError

NO_TRITON = "the kernels need the package triton, which is for Linux: pip install triton"

TARGETS = (80, 86, 89, 90, 100, 120)
"""Compute capabilities × 10: A100; RTX 30; RTX 40 and L4; H100 and H200; B200; RTX 50."""

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""What the tensors may hold → Triton's name for it."""

_TYPES = {"inv_T": "fp32", "statistics": "*fp32", "n": "i64"} | dict.fromkeys(
    ["planes", "H", "W", "OH", "OW", "targets"], "i32"
)
"""Run-time argument → its type, where it is no tensor of the dtype asked for."""


@dataclass(frozen=True)
class Compiled:
    """A kernel for one GPU architecture.

    A launch takes blocks of 32 · `num_warps` threads and `shared` bytes of dynamic shared memory;
    the kernel's docstring gives the grid. Its arguments are those of `signature`, in that order
    (name → type, pointers as "*fp32"), then two pointers to scratch memory that these kernels
    leave unused: null.
    """

    name: str
    target: int
    signature: Mapping[str, str]
    num_warps: int
    shared: int
    ptx: str
    cubin: bytes


def compile_kernel(
    kernel: Any,
    dtype: str,
    constants: Mapping[str, int | bool],
    target: int,
    multiples_of_16: Collection[str] = (),
) -> Compiled:
    """Compile a kernel of `triton_gates` or `triton_pools`.

    Args:
        kernel: the `triton.jit` function.
        dtype: of the tensors, one of `DTYPES`; arithmetic is in float32 in any case.
        constants: a value for each `tl.constexpr` parameter.
        target: one of `TARGETS`.
        multiples_of_16: run-time arguments promised to be multiples of 16 (a pointer: its
            address), by which loads become vector loads. The gates need it of `n` and of their
            tensors alike.

    Raises:
        InputError: a target or dtype that there is not, or constants that the kernel has not.
        BackendError: Triton is not installed, or fails to compile the kernel.
    """
    if target not in TARGETS:
        raise InputError(f"no target sm_{target}; choose one of {', '.join(map(str, TARGETS))}")
    if dtype not in DTYPES:
        raise InputError(f"no kernels for {dtype}; choose one of {', '.join(DTYPES)}")
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ModuleNotFoundError:
        raise BackendError(NO_TRITON) from None
    expected = {p.name for p in kernel.params if p.is_constexpr}
    if expected != constants.keys():
        raise InputError(
            f"{kernel.__name__} takes the constants {sorted(expected)}, not {sorted(constants)}"
        )
    names = [p.name for p in kernel.params if not p.is_constexpr]
    signature = {name: _TYPES.get(name, f"*{DTYPES[dtype]}") for name in names}
    source = ASTSource(
        kernel,
        {p.name: signature.get(p.name, "constexpr") for p in kernel.params},
        dict(constants),
        {
            (index,): [["tt.divisibility", 16]]
            for index, p in enumerate(kernel.params)
            if p.name in multiples_of_16
        },
    )
    try:
        done = triton.compile(
            source, target=GPUTarget("cuda", target, 32), options={"enable_fp_fusion": True}
        )
    except Exception as error:
        raise BackendError(f"{kernel.__name__} for sm_{target}: {error}") from error
    return Compiled(
        name=done.metadata.name,
        target=target,
        signature=signature,
        num_warps=done.metadata.num_warps,
        shared=done.metadata.shared,
        ptx=done.asm["ptx"],
        cubin=done.asm["cubin"],
    )
