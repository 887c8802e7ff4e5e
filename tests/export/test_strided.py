"""Gathers of every element in order are reshapes; others are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from onnxplain.export.canonical.canonicalise import canonicalise

HEAD = '<ir_version: 10, opset_import: ["": 20]>'


def gather(columns: int, kept: int) -> onnx.ModelProto:
    """[N, 3, 2, 2], flat, gathered in order as [columns per image · N rows …, kept elements]."""
    model: onnx.ModelProto = parser.parse_model(
        HEAD
        + f"""g (float[N,3,2,2] image) => (float[M,{columns}] logits)
        <int64[1] flat = {{-1}}, int64 zero = {{0}}, int64 one = {{1}}, int64 per = {{{kept}}},
         int64[2] shape = {{-1, {columns}}}>
        {{
            size = Shape<start = 0, end = 1>(image)
            scalar = Squeeze(size)
            count = Mul(scalar, per)
            indices = Range(zero, count, one)
            table = Reshape(indices, shape)
            elements = Reshape(image, flat)
            logits = Gather<axis = 0>(elements, table)
        }}"""
    )
    return model


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in canonicalise(ir.from_proto(model)).model.graph]


def test_a_gather_of_all_elements_in_order_is_a_reshape() -> None:
    assert "Gather" not in operators(gather(columns=12, kept=12))


def test_a_gather_of_the_first_elements_stays() -> None:
    assert "Gather" in operators(gather(columns=3, kept=3))


@pytest.mark.parametrize("equation", ["acb", "abc->acb", "nxy->nyx"])
def test_renamed_letters_mean_the_same_einsum(equation: str) -> None:
    model = parser.parse_model(
        HEAD
        + f"""g (float[N,3,2,2] image) => (float[N,6] logits)
        <int64[3] rows = {{-1, 3, 4}}, int64[2] flat = {{-1, 12}}>
        {{
            x = Reshape(image, rows)
            y = Einsum<equation = "{equation}">(x)
            z = Reshape(y, flat)
            logits = Slice(z, start, end, axis)
        }}""".replace(
            "int64[2] flat",
            "int64[1] start = {0}, int64[1] end = {6}, int64[1] axis = {1}, int64[2] flat",
        )
    )
    images = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    expected = np.einsum(equation, images.reshape(2, 3, 4)).reshape(2, 12)[:, :6]
    graph = canonicalise(ir.from_proto(model)).model
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, rtol=1e-6)
