"""Plans of random graphs, the graphs at any opset, and how their gradients are judged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnxscript import OpBuilder

from onnxplain.bench.node_tests.cases import NodeTest
from onnxplain.bench.node_tests.judge import Verdict, judge, swept
from onnxplain.bench.random_graphs.exported import swept_by_export
from onnxplain.bench.random_graphs.steps import STEPS, Step
from onnxplain.export.check import Case
from onnxplain.export.composites import spell_out
from onnxplain.export.tensors import static
from onnxplain.reference.float64 import evaluator, in_float64

Drawn: TypeAlias = Sequence[tuple[Step, int, int, int]]
"""Steps, each with two of the values so far, by their distance from the last one, and a seed."""

OLDEST, WRITTEN, NEWEST = 13, 20, onnx.defs.onnx_opset_version()
"""The opsets of the graphs, and that at which steps are written."""

_MOST = 300  # numbers in a value of one image


@dataclass
class Plan(Case):
    """A graph of such steps, from one image to two outputs; `exported` says whether it goes through
    `onnxplain.export`, or `onnxplain.differentiate`."""

    steps: Drawn = ()
    exported: bool = False

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        made = [*values]
        for step, i, j, seed in self.steps:
            x, y = (made[-1 - k % len(made)] for k in (i, j))
            result = step(op, x, y, np.random.default_rng(seed))
            if 0 < np.prod(static(result, 1)) <= _MOST:
                made.append(result)
        return [op.Mul(made[-1], 1.0), op.ReduceSum(op.Tanh(made[len(made) // 2]), [1, 2, 3])]

    def __str__(self) -> str:
        return " ".join(f"{step.__name__}({i}, {j}, {seed})" for step, i, j, seed in self.steps)


def draw(rng: np.random.Generator) -> tuple[Plan, int]:
    """A plan of four to eight steps, of an image of any small size, and an opset."""

    def below(n: int) -> int:
        return int(rng.integers(n))

    steps = [
        (STEPS[below(len(STEPS))], below(3), below(4), below(1000)) for _ in range(4 + below(5))
    ]
    shape = [2, 1 + below(3), 3 + below(5), 3 + below(5)]
    dynamic = [0] if below(2) else []
    images, opset = rng.normal(size=shape), OLDEST + below(NEWEST + 1 - OLDEST)
    exported = below(3) == 0
    if exported:
        dynamic = [0]
    alone = bool(dynamic) and below(2)  # an open batch of one, which may be stretched
    plan = Plan(
        "",
        [images[:1] if alone else images],
        outputs=2,
        dynamic=dynamic,
        steps=steps,
        exported=exported,
    )
    return plan, opset


def judged(plan: Plan, opset: int = WRITTEN) -> tuple[Verdict, int]:
    """What is made of a graph, beside differences of the graph; and the graph's opset, the
    first from the one asked for on, or the last before it, that can say it."""
    model = plan.forward_model(ir.DataType.FLOAT)
    spell_out(model)
    written = ir.to_proto(model)
    (x,) = plan.arrays()
    outputs = evaluator(in_float64(copy.deepcopy(written))).run(None, {"x0": x})
    named = dict(zip((y.name for y in written.graph.output), outputs, strict=True))
    proto = at_opset(written, opset)
    test = NodeTest(str(plan), "", proto, None, {"x0": x}, named)
    verdict = judge(test, swept_by_export if plan.exported else swept)
    return verdict, proto.opset_import[0].version


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same graph, written at the opset nearest to that asked for in the direction of 20."""
    norms = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    opset = max(opset, 14) if norms else opset  # the evaluator takes the batch's statistics at 13
    towards = range(opset, WRITTEN, 1 if opset < WRITTEN else -1)
    for version in towards:
        other = copy.deepcopy(model)
        del other.graph.value_info[:]
        (imported,) = (entry for entry in other.opset_import if not entry.domain)
        imported.version = version
        other.ir_version = helper.find_min_ir_version_for([imported], ignore_unknown=True)
        if version < 18:
            _spell_older(other.graph)
        try:
            onnx.checker.check_model(other, full_check=True)
        except Exception:  # of ONNX's own, of several kinds: this opset cannot say it
            continue
        return other
    return model


def _spell_older(graph: onnx.GraphProto) -> None:
    """Attributes that opset 18 made inputs are attributes again, newer ones are left out."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        reduces = node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"
        if reduces and len(node.input) == 2:
            axes = constants[node.input.pop()].tolist()
            node.attribute.append(helper.make_attribute("axes", axes))
        newer = _NEWER.get(node.op_type)
        kept = [attribute for attribute in node.attribute if attribute.name != newer]
        del node.attribute[:]
        node.attribute.extend(kept)


_NEWER = {"Split": "num_outputs", "GridSample": "mode"}
"""Operator → an attribute whose value goes without saying before opset 18."""
