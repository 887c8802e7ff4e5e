"""The backward pass of an explain graph, laid behind its canonical forward."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder
from onnxplain.contract.explain import PULLBACK, TARGET
from onnxplain.export.autodiff import Cotangents, Node, Rule, operator_name, pull_back
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.heads import activation_map, cotangent, one_hot
from onnxplain.export.lower import lower
from onnxplain.export.methods import Method
from onnxplain.export.methods.method import Temperature
from onnxplain.export.operators import VJPS
from onnxplain.export.provenance import named_after
from onnxplain.export.temperatures import fold_temperatures
from onnxplain.export.tensors import dims
from onnxplain.export.vmap import vmap
from onnxplain.kernels.calls import add_functions
from onnxplain.kernels.functions import KernelBuilder


def add_pullback(
    model: ir.Model,
    method: Method,
    values: Mapping[str, float | None],
    at: ir.Value,
    *,
    multi_target: bool = False,
    live: Collection[str] = (),
    kernels: bool = False,
    objective: str = "logit",
    excepted: Collection[ir.Value] = (),
) -> tuple[OpBuilder, ir.Value]:
    """Add the backward pass to a canonical forward graph, in place: its inputs and its output.

    Args:
        values: of the method's parameters.
        live: those of them that are inputs of the graph instead.
        objective: what is explained, as `ExportOptions` has it.
        excepted: values whose operator keeps its gradient's rule.
        at: where it stops: the image, or a layer for a method with an activation map.

    Returns:
        The builder that what comes after must use too (it knows the names that are taken), and
        the one-hot vector of the target.

    Raises:
        NoRuleError: an operator between the target's logit and `at` has no rule.
        RuleError: a rule gave what is no cotangent of its input.
        SourceError: the logit does not depend on `at`.
    """
    graph = model.graph
    (image,), (logits,) = graph.inputs, graph.outputs
    builder = KernelBuilder(graph) if kernels else Builder(graph)
    builder.push_module("pullback")
    op = builder.op
    leading = [dims(image)[0], *([ir.SymbolicDim("targets")] if multi_target else [])]
    target = builder.input(TARGET, ir.DataType.INT64, leading)
    taken: dict[str, Temperature | None] = dict(values)
    taken |= {name: builder.input(name, image.dtype, []) for name in live}
    rules = but_for(method.rules(taken, op), excepted)

    with named_after(op, "pullback/target"):
        hot = one_hot(op, logits, target)
        seed = cotangent(op, logits, hot, objective)
    head = len(graph)
    if multi_target:
        K = op.Shape(target, start=1, end=2)
        pullback, head = _sweep_each(op, logits, seed, K, at, rules)
    else:
        (pullback,) = pull_back(op, {logits: seed}, [at], rules)
    if method.times_input:
        pullback = op.Mul(pullback, image)
    shape = [*leading, *dims(image)[1:]]
    if method.activation_map is not None:
        channels = image_axes(image)[2]
        shape[channels - 4] = 1
        pullback = activation_map(op, method.activation_map, at, pullback, image, channels == 3)
    elif multi_target:
        pullback = op.Transpose(pullback, perm=[1, 0, 2, 3, 4])
    end = op.Identity(pullback)  # a use by which to find the last node's lowered form
    if isinstance(builder, KernelBuilder):
        add_functions(model, builder)
    lower(op, list(graph)[head:])
    fold_temperatures(op, image, logits)
    pullback = end if pullback is image else end.producer().inputs[0]
    graph.sort()
    pullback.name = PULLBACK
    graph.outputs.append(pullback)
    pullback.shape = ir.Shape(shape)
    return op, hot


def but_for(rules: Mapping[str, Rule], excepted: Collection[ir.Value]) -> Mapping[str, Rule]:
    """The rules, but that what puts out one of these values keeps its gradient's."""

    def either(name: str, rule: Rule) -> Rule:
        def apply(op: OpBuilder, node: Node, *g: Any) -> Cotangents:
            kept = any(y in excepted for y in node.outputs)
            return (VJPS[name] if kept else rule)(op, node, *g)

        return apply

    producers = [value.producer() for value in excepted]
    kinds = {operator_name(node) for node in producers if node is not None}
    return {name: either(name, rule) if name in kinds else rule for name, rule in rules.items()}


def _sweep_each(
    op: OpBuilder,
    logits: ir.Value,
    cotangents: ir.Value,
    K: ir.Value,
    at: ir.Value,
    rules: Mapping[str, Rule],
) -> tuple[ir.Value, int]:
    """The pullbacks [K, N, …] of cotangents [N, K, classes], and where in the graph they begin.

    One of them is swept, and the nodes of that sweep are repeated for all.
    """
    graph = op.builder.graph
    each = op.Transpose(cotangents, perm=[1, 0, 2])
    first = op.Squeeze(op.Slice(each, [0], [1], [1]), [1])
    before = len(graph)
    (pullback,) = pull_back(op, {logits: first}, [at], rules)
    backward = list(graph)[before:]
    head = len(graph)
    return vmap(op, backward, {first: each}, K)[pullback], head
