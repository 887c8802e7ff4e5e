"""A small file makes no large export: what grows is counted before it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.errors import SourceError
from onnxplain.export import export
from onnxplain.export.budget import Limit, within
from onnxplain.export.canonical.evaluate import evaluated
from onnxplain.export.canonical.misread import Corrected, spell_misread
from onnxplain.export.canonical.optimise import optimise
from onnxplain.export.shapes import infer_shapes

OWN = "own"


def integers(name: str, *numbers: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    functions: list[onnx.FunctionProto] | None = None,
    constants: list[onnx.TensorProto] | None = None,
) -> Path:
    """A classifier whose features h the nodes compute of x."""
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "W")
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("ReduceMean", ["h", "axes"], ["m"], keepdims=0),
            helper.make_node("MatMul", ["m", "W"], ["y"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [weight, integers("axes", 2, 3), *(constants or [])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(OWN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(OWN, 1)]
    return helper.make_function(OWN, name, ["x"], ["h"], nodes, opsets)


def calls(*names: str) -> list[onnx.NodeProto]:
    """Calls in a row, from x to h."""
    values = ["x", *(f"v{i}" for i in range(len(names) - 1)), "h"]
    return [
        helper.make_node(name, [values[i]], [values[i + 1]], domain=OWN)
        for i, name in enumerate(names)
    ]


def doubling(levels: int) -> list[onnx.FunctionProto]:
    """Functions of which each calls the next twice."""
    last = function(f"F{levels}", [helper.make_node("Sigmoid", ["x"], ["h"])])
    return [*(function(f"F{i}", calls(*[f"F{i + 1}"] * 2)) for i in range(levels)), last]


class TestNodes:
    def test_functions_that_call_each_other_twice(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "m.onnx", calls("F0"), doubling(24))
        begun = time.process_time()
        with pytest.raises(SourceError, match=r"nodes once .*of at most 200,000; .*budget= of \d+"):
            export(path, tmp_path / "out.onnx")
        assert time.process_time() - begun < 5

    def test_the_budget_that_the_error_names_is_enough(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("onnxplain.export.budget.NODES", Limit(5, "{count} nodes"))
        path = saved(tmp_path / "m.onnx", calls("F0"), doubling(3))
        with pytest.raises(SourceError, match=r"8 nodes, of at most 5; .*budget= of 2 allows"):
            export(path, tmp_path / "out.onnx", method="gradient")
        export(path, tmp_path / "out.onnx", method="gradient", budget=3)

    def test_functions_in_a_circle(self, tmp_path: Path) -> None:
        circle = [function("F", calls("G")), function("G", calls("F"))]
        path = saved(tmp_path / "m.onnx", calls("F"), circle)
        with pytest.raises(SourceError, match="call each other"):
            export(path, tmp_path / "out.onnx")

    def test_a_chain_of_functions(self, tmp_path: Path) -> None:
        chain = [function(f"F{i}", calls(f"F{i + 1}")) for i in range(300)]
        path = saved(
            tmp_path / "m.onnx",
            calls("F0"),
            [*chain, function("F300", [helper.make_node("Sigmoid", ["x"], ["h"])])],
        )
        with pytest.raises(SourceError, match="33 deep, of at most 32"):
            export(path, tmp_path / "out.onnx")

    def test_a_loop_of_many_nodes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        limit = Limit(100, "{count} nodes")
        monkeypatch.setattr("onnxplain.export.canonical.control_flow.NODES", limit)
        sigmoids = [helper.make_node("Sigmoid", [f"s{i}"], [f"s{i + 1}"]) for i in range(9)]
        keep = helper.make_node("Identity", ["go"], ["still"])
        body = helper.make_graph(
            [*sigmoids, keep],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("s0", TensorProto.FLOAT, ["N", 3, 8, 8]),
            ],
            [
                helper.make_tensor_value_info("still", TensorProto.BOOL, []),
                helper.make_tensor_value_info("s9", TensorProto.FLOAT, ["N", 3, 8, 8]),
            ],
        )
        loop = helper.make_node("Loop", ["count", "", "x"], ["h"], body=body)
        count = numpy_helper.from_array(np.array(20), "count")
        path = saved(tmp_path / "m.onnx", [loop], constants=[count])
        with pytest.raises(SourceError, match="nodes, of at most 100"):
            export(path, tmp_path / "out.onnx")


HUGE = 2**33


@pytest.mark.parametrize(
    ("nodes", "constants"),
    {
        "Expand": (["Expand", "one", "huge"], [integers("one", 1), integers("huge", HUGE)]),
        "Range": (
            ["Range", "none", "huge", "one"],
            [numpy_helper.from_array(np.array(n), name) for n, name in ((0, "none"), (1, "one"))]
            + [numpy_helper.from_array(np.array(HUGE), "huge")],
        ),
        "Tile": (["Tile", "one", "huge"], [integers("one", 1), integers("huge", HUGE)]),
        "HannWindow": (["HannWindow", "huge"], [numpy_helper.from_array(np.array(HUGE), "huge")]),
    }.values(),
    ids=["Expand", "Range", "Tile", "HannWindow"],
)
class TestConstants:
    def test_a_network_with_it_is_refused(
        self, nodes: list[str], constants: list[onnx.TensorProto], tmp_path: Path
    ) -> None:
        operator, *operands = nodes
        made = [
            helper.make_node(operator, operands, ["v"]),
            helper.make_node("Cast", ["v"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["f"], ["one_number"], keepdims=0),
            helper.make_node("Mul", ["x", "one_number"], ["h"]),
        ]
        path = saved(tmp_path / "m.onnx", made, constants=constants)
        with pytest.raises(SourceError, match=r"8,589,934,592 elements, .*budget= of 40 allows"):
            export(path, tmp_path / "out.onnx")

    def model(self, nodes: list[str], constants: list[onnx.TensorProto]) -> ir.Model:
        operator, *operands = nodes
        element = TensorProto.FLOAT if operator == "HannWindow" else TensorProto.INT64
        graph = helper.make_graph(
            [helper.make_node(operator, operands, ["v"])],
            "constant",
            [],
            [helper.make_tensor_value_info("v", element, None)],
            constants,
        )
        opset = [helper.make_opsetid("", 20)]
        return ir.from_proto(helper.make_model(graph, opset_imports=opset))

    def test_what_is_too_large_to_keep_is_not_computed(
        self, nodes: list[str], constants: list[onnx.TensorProto]
    ) -> None:
        from onnxplain.export.canonical.general import _should_fold

        model = self.model(nodes, constants)
        optimise(model, _should_fold)
        assert [node.op_type for node in model.graph] == [nodes[0]]

    def test_nor_is_it_for_the_course_of_a_loop(
        self, nodes: list[str], constants: list[onnx.TensorProto]
    ) -> None:
        if nodes[0] != "HannWindow":
            value = self.model(nodes, constants).graph.outputs[0]
            assert evaluated(value, 20, 1) is None


def test_an_image_is_no_larger_than_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["h"])])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40
    onnx.save(model, path)
    with pytest.raises(SourceError, match="elements, of at most"):
        export(path, tmp_path / "out.onnx")


def chain(path: Path, operator: str, count: int) -> Path:
    values = ["x", *(f"v{i}" for i in range(count - 1)), "h"]
    nodes = [
        helper.make_node(operator, values[i : i + 1], values[i + 1 : i + 2]) for i in range(count)
    ]
    return saved(path, nodes)


def test_each_node_is_looked_at_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the optimiser listed the whole graph at every node: 3,000 took five times 1,000's."""
    looked: list[ir.Node] = []
    identifier = ir.Node.op_identifier

    def counted(node: ir.Node) -> ir.OperatorIdentifier:
        looked.append(node)
        return identifier(node)

    monkeypatch.setattr(ir.Node, "op_identifier", counted)

    def looks(count: int) -> int:
        looked.clear()
        optimise(ir.load(chain(tmp_path / "m.onnx", "Celu", count)), lambda node: None)
        return len(looked)

    assert looks(200) < 10 * looks(25)


@pytest.mark.parametrize(
    "node",
    [
        {"op_type": "MaxPool", "kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {
            **{"op_type": "ConvTranspose", "auto_pad": "SAME_UPPER"},
            **{"strides": [2, 2], "output_padding": [1, 1]},
        },
    ],
)
def test_what_was_inferred_wrong_is_inferred_again_by_itself(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was at each such node: 1,000 of 1,000 nodes took minutes."""
    inferred: list[ir.Model] = []
    monkeypatch.setattr("onnxplain.export.canonical.misread.infer_shapes", inferred.append)
    operands = ["x"] if node["op_type"] == "MaxPool" else ["x", "W"]
    pads = {"pads": [0, 0, 1, 1]} if node["op_type"] == "MaxPool" else {}
    graph = helper.make_graph(
        [helper.make_node(inputs=operands, outputs=[f"y{i}"], **node, **pads) for i in range(9)],
        "parallel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(9)],
        [numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "W")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    spell_misread(model)
    assert inferred == []


def test_so_is_what_follows_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the whole graph was as soon as one of those shapes was needed: at every such node."""
    values = ["x", *(f"v{i}" for i in range(10))]
    kinds: list[dict[str, Any]] = [
        {
            **{"op_type": "MaxPool", "kernel_shape": [2, 2], "strides": [2, 2]},
            **{"pads": [0, 0, 1, 1], "ceil_mode": 1},
        },
        {"op_type": "Resize"},
    ]
    operands = [lambda x: [x], lambda x: [x, "", "twice"]]
    nodes = [
        helper.make_node(inputs=operands[i % 2](values[i]), outputs=[values[i + 1]], **kinds[i % 2])
        for i in range(10)
    ]
    graph = helper.make_graph(
        nodes,
        "in a row",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("v9", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    infer_shapes(model)
    sizes = [list(node.outputs[0].shape or ()) for node in model.graph]
    assert sizes[:2] == [[1, 3, 5, 5], [1, 3, 10, 10]]
    inferred: list[ir.Model] = []
    monkeypatch.setattr("onnxplain.export.canonical.misread.infer_shapes", inferred.append)
    spell_misread(model)
    assert [list(node.outputs[0].shape or ()) for node in model.graph] == [
        *([1, 3, 4, 4], [1, 3, 8, 8]) * 5
    ]
    assert inferred == []


def test_shapes_that_no_node_tells_by_itself_are_inferred_a_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = ir.Value(name="x")
    node = ir.node("Relu", [x])
    graph = ir.Graph([x], [], nodes=[node], opset_imports={"": 20})
    corrected = Corrected(ir.Model(graph, ir_version=10))
    monkeypatch.setattr("onnxplain.export.canonical.misread.infer_shapes", lambda model: None)
    for _ in range(100):
        corrected.add(node)
        assert corrected.sizes(x) is corrected.sizes(x) is None
    corrected.add(node)
    with pytest.raises(SourceError, match="inferred 101 times, of at most 100"):
        corrected.sizes(x)


def test_nothing_is_asked_where_every_shape_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 3]))
    node = ir.node("Relu", [x])
    y = node.outputs[0]
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    infer_shapes(model)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    infer_shapes(model)


@pytest.mark.sweep
def test_twenty_thousand_nodes(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", "Relu", 20_000)
    begun = time.process_time()
    export(path, tmp_path / "out.onnx", method="gradient")
    assert time.process_time() - begun < 60


def test_two_slices_of_an_odd_size_are_no_halves(tmp_path: Path) -> None:
    """Slices to 2 and from 2 of 5 once became a Split, which gives 3 and 2."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "two", "last"], ["a"]),
        helper.make_node("Slice", ["x", "two", "five", "last"], ["b"]),
    ]
    graph = helper.make_graph(
        nodes,
        "halves",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ab"],
        [integers("zero", 0), integers("two", 2), integers("five", 5), integers("last", 1)],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    optimise(model, lambda node: None)
    assert [node.op_type for node in model.graph] == ["Slice", "Slice"]


def test_the_factor_is_that_of_its_block() -> None:
    limit = Limit(10, "{count} of them")
    with within(2):
        limit.check(20)
    with pytest.raises(SourceError, match=r"20 of them, of at most 10; .*budget= of 3 allows"):
        limit.check(20)
