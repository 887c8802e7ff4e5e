"""What files declare of their sizes, where that means something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxplain

from .graphs import explain, head, images, node, write


def network(folder: Path, shape: Sequence[int], output: Sequence[int | str] | None = None) -> Path:
    tail, weight = head("p", 4)
    nodes = [node("Conv", ["x", "A"], ["c"]), node("GlobalAveragePool", ["c"], ["p"])]
    weights = {"A": images(4, 3, 3, 3)} | weight
    path = write(folder / "net.onnx", [*nodes, *tail], weights, shape)
    if output is not None:
        model = onnx.load(path)
        del model.graph.output[0]
        declared = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, output)
        model.graph.output.append(declared)
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("nothing", [-1, 0])
def test_sizes_of_minus_one_and_of_zero_are_open(nothing: int, tmp_path: Path) -> None:
    """As Paddle's exporter writes them."""
    x = images(3, 3, 8, 10)
    expected = explain(network(tmp_path, [3, 3, 8, 10]), x)
    found = explain(network(tmp_path, [nothing, 3, nothing, nothing], [-1, 4]), x, size=(8, 10))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5)


@pytest.mark.parametrize("output", [["N"], ["N", "more", "sizes"], ["N", 7], None])
def test_an_output_has_the_shape_that_is_computed(
    output: Sequence[int | str] | None, tmp_path: Path
) -> None:
    """Not the one that is declared; ONNX Runtime warns of it, and goes on."""
    path = network(tmp_path, [2, 3, 8, 8], output)
    onnxplain.export(path, tmp_path / "e.onnx")
    x = images(2, 3, 8, 8)
    assert onnxplain.load(tmp_path / "e.onnx", threads=1)(x).logits.shape == (2, 4)
