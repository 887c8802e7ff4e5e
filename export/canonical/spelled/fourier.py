"""Fourier transforms as products with constant matrices, their lengths being known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.emit import Emitted, Emitter, integers
from onnxplain.export.tensors import array_of, attribute, rank, size_of

LONGEST = 2048  # rows of a matrix, which has 16 MB then


def dft(emit: Emitter, node: ir.Node) -> Emitted:
    """X_k = Σ_j x_j e^(−2πi jk/N) along one axis; numbers lie as (real, imaginary) on the last."""
    x, length, axis = [*node.inputs, None, None][:3]
    assert x is not None
    at = _known(node, axis, "axis", -2) % rank(x)
    inverse, onesided = (bool(attribute(node, name, 0)) for name in ("inverse", "onesided"))
    there = size_of(x, at)
    usual = 2 * (there - 1) if inverse and onesided else there
    N = _known(node, length, "length", usual)
    _check_length(node, max(N, there))
    return transformed(emit, x, at, N, inverse, onesided)


def transformed(
    emit: Emitter, x: ir.Value, axis: int, N: int, inverse: bool, onesided: bool
) -> ir.Value:
    """Of a length N, that x is cut or filled with zeros to; its inverse is by N, and onesided
    means half of a spectrum that is symmetric: given, if inverse, else wanted."""
    n = size_of(x, axis)
    half = N // 2 + 1
    rows = min(n, half if inverse and onesided else N)
    columns = half if onesided and not inverse else N
    angles = 2 * np.pi * np.outer(np.arange(rows), np.arange(columns)) / N
    weights = np.ones([rows, 1])
    if inverse:
        weights = weights / N
        if onesided:  # the other half counts too
            weights[1 : (N + 1) // 2] *= 2
    cos, sin = (
        emit.constant(np.pad(weights * part, [(0, n - rows), (0, 0)]))
        for part in (np.cos(angles), np.sin(-angles if inverse else angles))
    )
    swap = list(range(rank(x) - 1))
    swap[axis], swap[-1] = swap[-1], swap[axis]

    def along(part: ir.Value, matrix: ir.Value) -> ir.Value:
        product = emit("MatMul", emit("Transpose", part, perm=swap), matrix)
        return emit("Transpose", product, perm=swap)

    real = emit("Gather", x, np.array(0), axis=-1)
    if size_of(x, -1) == 2:
        imaginary = emit("Gather", x, np.array(1), axis=-1)
        wanted = [emit("Add", along(real, cos), along(imaginary, sin))]
        if not (inverse and onesided):
            wanted.append(emit("Sub", along(imaginary, cos), along(real, sin)))
    else:
        wanted = [along(real, cos)]
        if not (inverse and onesided):
            wanted.append(emit("Neg", along(real, sin)))
    return emit("Concat", *(emit("Unsqueeze", part, integers(-1)) for part in wanted), axis=-1)


def stft(emit: Emitter, node: ir.Node) -> Emitted:
    """The transforms of frames of a signal [batch, length, 1 or 2], each times a window."""
    signal, step, window, length = [*node.inputs, None, None][:4]
    assert signal is not None
    usual = None if window is None else size_of(window, 0)
    N, hop = _known(node, length, "length", usual), _known(node, step, "step", None)
    _check_length(node, N)
    starts = np.arange(0, size_of(signal, 1) - N + 1, hop)
    frames = emit("Gather", signal, starts[:, None] + np.arange(N), axis=1)
    frames.shape = ir.Shape([*(signal.shape or [])[:1], len(starts), N, size_of(signal, 2)])
    if window is not None:
        cut = emit("Mul", frames, emit("Unsqueeze", window, integers(-1)))
        cut.shape, frames = frames.shape, cut
    return transformed(emit, frames, 2, N, False, bool(attribute(node, "onesided", 1)))


def _check_length(node: ir.Node, length: int) -> None:
    if length > LONGEST:
        raise SourceError(
            f"{node.op_type} {node.name!r} is of length {length}, too long for a product with a "
            f"matrix: {LONGEST} at most"
        )


def _known(node: ir.Node, value: ir.Value | None, what: str, usual: int | None) -> int:
    number = array_of(value)
    if value is None and usual is not None:
        return usual
    if number is None:
        raise SourceError(f"{node.op_type} {node.name!r} is told its {what} at run time")
    return int(number.item())
