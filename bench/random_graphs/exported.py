"""The same question to `onnxplain.export`: the pullback of a file that it writes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

import onnxplain
from onnxplain.bench.node_tests.cases import NodeTest
from onnxplain.bench.node_tests.judge import Array, Feeds, Swept
from onnxplain.contract.derivatives import GRADIENT, SEED
from onnxplain.contract.explain import IMAGE, PULLBACK
from onnxplain.reference.float64 import evaluator, in_float64

_OWN = "given."
"""Before the name of what the objective takes besides the outputs."""


def swept_by_export(test: NodeTest) -> Swept:
    """The explain graph of Σ seed · output, method gradient, evaluated in float64.

    Args:
        test: of one image, with an open batch.
    """
    (image,) = test.inputs
    with TemporaryDirectory(prefix="onnxplain-") as folder:
        source, objective, path = (Path(folder) / f"{name}.onnx" for name in ("m", "sum", "e"))
        onnx.save(test.model, source)
        onnx.save(_weighted_sum(test), objective)
        onnxplain.export(source, path, method="gradient", objective=str(objective))
        model = in_float64(onnx.load(path))
    run, names = evaluator(model), {y.name for y in model.graph.output}
    own = {name: name if name in names else f"source.{name}" for name in test.outputs}
    wanted = [*own.values(), PULLBACK]

    def by_name(feeds: Feeds) -> dict[str, Array]:
        given = {f"{_OWN}{name}": feeds[SEED.format(of=name)] for name in test.outputs}
        found = dict(zip(wanted, run.run(wanted, {IMAGE: feeds[image], **given}), strict=True))
        outputs = {name: found[there] for name, there in own.items()}
        return {**outputs, GRADIENT.format(wrt=image): found[PULLBACK]}

    return Swept(by_name, [*test.outputs])


def _weighted_sum(test: NodeTest) -> onnx.ModelProto:
    """An objective: each output times an input of its shape, summed over all but the batch."""
    inputs, nodes, sums = [], [], []
    for i, (name, y) in enumerate(test.outputs.items()):
        shape, weight = ["N", *y.shape[1:]], f"{_OWN}{name}"
        inputs += [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in (name, weight)
        ]
        nodes += [
            helper.make_node("Mul", [name, weight], [f"product{i}"]),
            helper.make_node("Flatten", [f"product{i}"], [f"flat{i}"]),
            helper.make_node("ReduceSum", [f"flat{i}", "last"], [f"sum{i}"], keepdims=0),
        ]
        sums.append(f"sum{i}")
    nodes.append(helper.make_node("Sum", sums, ["total"]))
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N"])
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "weighted_sum", inputs, [total], [last])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
