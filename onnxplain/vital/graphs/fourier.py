"""A picture as its spectrum (Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017).

A gradient step on the spectrum changes all frequencies alike, and the colours independently.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import OpBuilder

from onnxplain.contract.explain import Preprocessing
from onnxplain.export.tensors import constant

_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
"""A square root of the correlation of ImageNet's colours (the Lucid library's figures)."""

_CONTRAST = 0.25  # Lucid's: noise starts close to grey


def picture(op: OpBuilder, spectrum: ir.Value, pre: Preprocessing) -> ir.Value:
    """The network's input [N, C, H, W] (in its layout) from a spectrum [N, 2, C, H, W/2 + 1].

    σ(irfft2(spectrum / frequency) · colours), normalised. `spectrum` holds real and imaginary
    parts; each coefficient is divided by its frequency, because in photographs amplitudes fall so.
    """
    height, width = pre.height, pre.width
    scale = constant(op, amplitudes(height, width), spectrum)
    real, imaginary = (
        op.Mul(op.Squeeze(op.Slice(spectrum, [i], [i + 1], [1]), [1]), scale) for i in (0, 1)
    )
    cos, sin = (constant(op, wave, spectrum) for wave in _waves(height, height))
    along = op.Sub(op.MatMul(cos, real), op.MatMul(sin, imaginary))
    across = op.Add(op.MatMul(sin, real), op.MatMul(cos, imaginary))
    cos, sin = (constant(op, wave.T, spectrum) for wave in half_waves(width))
    pixels = op.Mul(op.Sub(op.MatMul(along, cos), op.MatMul(across, sin)), _CONTRAST)
    pixels = op.Transpose(pixels, perm=[0, 2, 3, 1])
    if pre.channels == len(_COLOURS):
        colours = _COLOURS / np.linalg.norm(_COLOURS, axis=0).max()
        pixels = op.MatMul(pixels, constant(op, colours.T, spectrum))
    mean, std = (constant(op, np.array(values), spectrum) for values in (pre.mean, pre.std))
    pixels = op.Div(op.Sub(op.Sigmoid(pixels), mean), std)
    return pixels if pre.layout == "NHWC" else op.Transpose(pixels, perm=[0, 3, 1, 2])


def amplitudes(height: int, width: int) -> NDArray[np.float64]:
    """√(HW) / frequency for each coefficient, divided by the inverse transform's H·W: [H, W/2 + 1].

    Frequencies are in cycles per pixel; the constant coefficient has the lowest other one's.
    """
    rows, columns = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    frequency = np.hypot(rows[:, None], columns)
    lowest = 1 / max(height, width)
    scale: NDArray[np.float64] = 1 / (np.maximum(frequency, lowest) * np.sqrt(height * width))
    return scale


def _waves(size: int, frequencies: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos and sin of 2π f x / size, [size, frequencies]."""
    angle = 2 * np.pi * np.outer(np.arange(size), np.arange(frequencies)) / size
    return np.cos(angle), np.sin(angle)


def half_waves(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same for the half spectrum of a real signal: mirrored coefficients count twice."""
    frequencies = size // 2 + 1
    cos, sin = _waves(size, frequencies)
    twice = np.full(frequencies, 2.0)
    twice[0] = 1
    if size % 2 == 0:
        twice[-1] = 1
    return cos * twice, sin * twice
