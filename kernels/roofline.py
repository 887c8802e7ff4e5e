"""The bytes that each kernel must move: what its time is measured against.

All of them are bound by memory. `elements` and `itemsize` are of the tensors; statistics are
float32 in any case. What a cache serves again does not count.
"""

from __future__ import annotations

from onnxplain.kernels.pool import Pool


def soft_gate_bytes(elements: int, itemsize: int, targets: int = 1) -> int:
    """z once; g and the result once per target."""
    return (1 + 2 * targets) * elements * itemsize


def relu_soft_gate_bytes(elements: int, itemsize: int) -> int:
    """z once; y and the gate."""
    return 3 * elements * itemsize


def soft_max_pool_grad_bytes(
    pool: Pool, elements: int, windows: int, itemsize: int, targets: int = 1
) -> int:
    """x once; g and the result once per target; where statistics are stored, x once more.

    Args:
        elements, windows: of all planes together, on the pool's input and output side.
        targets: each of them reads x and the statistics again.
    """
    gather = targets * (2 * elements + windows) * itemsize
    if not pool.stores_statistics:
        return gather
    written = read = 2 * windows * 4
    return elements * itemsize + written + gather + targets * read
