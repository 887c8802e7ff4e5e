"""A ConvTranspose that pads by itself and has an output padding is what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from .graphs import explain, head, images, node, source_outputs, write


@pytest.mark.parametrize("auto_pad", ["SAME_LOWER", "SAME_UPPER"])
@pytest.mark.parametrize(("kernel", "stride", "total"), [(3, 2, 2), (4, 3, 2), (2, 3, 0)])
def test_same_pads_count_the_output_padding(
    auto_pad: str, kernel: int, stride: int, total: int, tmp_path: Path
) -> None:
    weights = {"K": images(3, 2, kernel, kernel, seed=1)}
    options = {"auto_pad": auto_pad, "output_padding": [1, 1], "strides": [stride, stride]}
    conv = node("ConvTranspose", ["x", "K"], ["c"], **options)
    tail, more = head("mean", 2)  # a Flatten of all would not fit what is inferred of its size
    bent = [node("Tanh", ["c"], ["t"]), node("GlobalAveragePool", ["t"], ["mean"])]
    source = write(tmp_path / "net.onnx", [conv, *bent, *tail], weights | more, ("N", 3, 5, 5))
    x = images(2, 3, 5, 5)
    found = explain(source, x)
    np.testing.assert_allclose(found.logits, source_outputs(source, x)[0], rtol=1e-4, atol=1e-4)
    given = torch.tensor(x, requires_grad=True)
    y = functional.conv_transpose2d(
        given, torch.tensor(weights["K"]), stride=stride, padding=total // 2, output_padding=1
    )
    (y.tanh().mean((2, 3)) @ torch.tensor(more["W"]))[:, 1].sum().backward()
    np.testing.assert_allclose(found.pullback, given.grad, rtol=1e-4, atol=1e-4)
