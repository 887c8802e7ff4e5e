"""A strided transposed convolution by phases is the same numbers, and takes its place."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.runtime.sessions.openvino.compile import prepared
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.options import configuration
from onnxplain.runtime.sessions.openvino.strided import strided_by_phases

openvino = pytest.importorskip("openvino")


def transposed(kernel, stride, pad, extra, grouped, dilation=1, channels=4):
    """A model of one transposed convolution of [N,6,5,7]: depthwise, or of 6 to 4 channels."""
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    x = ops.parameter(openvino.PartialShape([-1, 6, 5, 7]), np.float32)
    size = (6, 1, 1, kernel, kernel) if grouped else (6, channels, kernel, kernel)
    make = ops.group_convolution_backprop_data if grouped else ops.convolution_backprop_data
    y = make(
        x,
        ops.constant(rng.standard_normal(size, dtype=np.float32)),
        strides=[stride, stride],
        pads_begin=[pad, pad],
        pads_end=[pad, pad],
        dilations=[dilation, dilation],
        output_padding=[extra, extra],
    )
    return openvino.Model([y], [x])


def run(model):
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 7), dtype=np.float32)
    return core().compile_model(model, "CPU", configuration("float32", "latency", 1))([x])[0]


def left(model) -> bool:
    return any("Backprop" in node.get_type_name() for node in model.get_ops())


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "extra", "grouped"),
    [
        (3, 2, 1, 1, True),
        (3, 2, 1, 0, True),
        (5, 2, 2, 1, True),
        (5, 2, 1, 0, True),
        (2, 2, 0, 0, True),
        (7, 4, 3, 3, True),
        (4, 3, 0, 2, True),
        (2, 3, 0, 0, True),
        (1, 2, 0, 1, False),
        (1, 3, 0, 1, False),
    ],
)
def test_phases_are_the_transposed_convolution(kernel, stride, pad, extra, grouped):
    model = transposed(kernel, stride, pad, extra, grouped)
    expected = run(model)
    strided_by_phases(model)
    assert not left(model)
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "grouped", "dilation"),
    [(3, 1, True, 1), (3, 2, False, 1), (3, 2, True, 2)],
    ids=["stride 1", "dense", "dilated"],
)
def test_others_stay_as_they_are(kernel, stride, grouped, dilation):
    model = transposed(kernel, stride, 1, 0, grouped, dilation)
    strided_by_phases(model)
    assert left(model)


def test_it_is_for_bfloat16_alone():
    assert left(prepared(transposed(3, 2, 1, 1, True), "float32", None))
    assert not left(prepared(transposed(3, 2, 1, 1, True), "bfloat16", None))
