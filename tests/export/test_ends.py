"""A final Softmax over the classes, or Sigmoid, is explained at its input; no other one is. Open
sizes of the image are filled in wherever they are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxplain.export.canonical.canonicalise import canonicalise

from .graphs import Array, explain, images, node, source_outputs, write

X = images(2, 3, 8, 8)


def network(path: Path, *tail: onnx.NodeProto, **shapes: list[int]) -> Path:
    """[N, 12] logits `z`, what follows them up to `y`, and the shapes it reshapes to."""
    nodes = [
        node("GlobalAveragePool", ["x"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("MatMul", ["features", "W"], ["z"]),
        *tail,
    ]
    return write(path, nodes, {"W": images(3, 12)} | {k: np.array(v) for k, v in shapes.items()})


def logits() -> Array:
    return X.mean((2, 3)) @ images(3, 12)


@pytest.mark.parametrize("groups", [[-1, 4], [-1, 3, 4], [-1, 4, 1]], ids=str)
def test_a_softmax_over_groups_of_the_classes_is_kept(groups: list[int], tmp_path: Path) -> None:
    tail = [
        node("Reshape", ["z", "groups"], ["grouped"]),
        node("Softmax", ["grouped"], ["shares"], axis=groups.index(4)),
        node("Reshape", ["shares", "rows"], ["y"]),
    ]
    source = network(tmp_path / "groups.onnx", *tail, groups=groups, rows=[-1, 12])
    expected = source_outputs(source, X)[0]
    np.testing.assert_allclose(explain(source, X).logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("groups", [[-1, 12], [-1, 1, 12], [-1, 12, 1, 1]], ids=str)
def test_a_softmax_over_all_classes_is_cut_off_through_reshapes(
    groups: list[int], tmp_path: Path
) -> None:
    tail = [
        node("Reshape", ["z", "groups"], ["grouped"]),
        node("Softmax", ["grouped"], ["shares"], axis=groups.index(12)),
        node("Reshape", ["shares", "rows"], ["y"]),
    ]
    source = network(tmp_path / "classes.onnx", *tail, groups=groups, rows=[-1, 12])
    explanation = explain(source, X)
    np.testing.assert_allclose(explanation.logits, logits(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        explanation.probabilities, source_outputs(source, X)[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("groups", [[-1, 4], [-1, 3, 4], [-1, 12]], ids=str)
def test_a_sigmoid_is_cut_off_whatever_is_reshaped_behind_it(
    groups: list[int], tmp_path: Path
) -> None:
    tail = [
        node("Reshape", ["z", "groups"], ["grouped"]),
        node("Sigmoid", ["grouped"], ["each"]),
        node("Reshape", ["each", "rows"], ["y"]),
    ]
    source = network(tmp_path / "sigmoid.onnx", *tail, groups=groups, rows=[-1, 12])
    explanation = explain(source, X)
    assert explanation.activation == "sigmoid"
    np.testing.assert_allclose(explanation.logits, logits(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        explanation.probabilities, source_outputs(source, X)[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("batch", ["N", "S"])
def test_sizes_that_share_a_name_are_filled_in_each_as_its_own(batch: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["": 20]>
        network (float[{batch}, 3, S, S] x) => (float[{batch}, 3] logits) <
            float[{batch}, 3, S, S] a, int64[2] axes = {{2, 3}}
        > {{
            a = Relu (x)
            logits = ReduceMean <keepdims = 0> (a, axes)
        }}"""
    model = canonicalise(ir.from_proto(onnx.parser.parse_model(text)), (4, 6)).model
    assert [str(n) for n in model.graph[0].outputs[0].shape or ()] == ["batch", "3", "4", "6"]
