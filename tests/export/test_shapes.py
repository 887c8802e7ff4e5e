"""What is read of ONNX's shape inference is all of it."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from onnxplain.export.shapes import infer_shapes

from ..fuzz.seeds import networks


def found(model: ir.Model) -> dict[str, object]:
    values = ir.convenience.create_value_mapping(model.graph)
    return {name: (value.shape, value.dtype) for name, value in values.items()}


@pytest.mark.parametrize("network", networks(), ids=lambda model: model.graph.node[0].op_type)
@pytest.mark.parametrize("data_prop", [False, True])
def test_it_is_that_of_the_whole_answer(network: onnx.ModelProto, data_prop: bool) -> None:
    ours, theirs = ir.from_proto(network), ir.from_proto(network)
    for _ in range(2):
        infer_shapes(ours, data_prop)
        common.ShapeInferencePass(data_prop=data_prop)(theirs)
        assert found(ours) == found(theirs)
        for model in (ours, theirs):  # a batch of two: what is known is known otherwise
            model.graph.inputs[0].shape = ir.Shape([2, 3, 8, 8])
            for node in model.graph:
                node.outputs[0].shape = None
    assert any(shape for shape, _ in found(ours).values())


def test_where_something_contradicts_it_nothing_is_found() -> None:
    (model, *_) = (ir.from_proto(network) for network in networks())
    model.graph.outputs[0].shape = ir.Shape([1, 7])
    before = found(model)
    infer_shapes(model)
    assert found(model) == before
