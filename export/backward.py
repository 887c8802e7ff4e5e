"""The backward pass of an explain graph, laid behind its canonical forward."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.contract.explain import PULLBACK, TARGET, TEMPERATURE
from onnxplain.export.autodiff import Rule, pull_back
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.heads import activation_map, one_hot
from onnxplain.export.lower import lower
from onnxplain.export.methods import Method
from onnxplain.export.methods.method import Temperature
from onnxplain.export.provenance import named_after
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
    live_temperature: bool = False,
    kernels: bool = False,
) -> tuple[OpBuilder, ir.Value]:
    """Add the backward pass to a canonical forward graph, in place: its inputs and its output.

    Args:
        values: of the method's parameters.
        at: where it stops: the image, or a layer for a method with an activation map.

    Returns:
        The builder that what comes after must use too (it knows the names that are taken), and
        the cotangent of the logits, which holds the target.
    """
    graph = model.graph
    (image,), (logits,) = graph.inputs, graph.outputs
    builder = KernelBuilder(graph) if kernels else GraphBuilder(graph)
    builder.push_module("pullback")
    op = builder.op
    leading = [dims(image)[0], *([ir.SymbolicDim("targets")] if multi_target else [])]
    target = builder.input(TARGET, ir.DataType.INT64, leading)
    taken: dict[str, Temperature | None] = dict(values)
    if live_temperature:
        taken[TEMPERATURE] = builder.input(TEMPERATURE, image.dtype, [])
    rules = method.rules(taken, op)

    with named_after(op, "pullback/target"):
        cotangent = one_hot(op, logits, target)
    head = len(graph)
    if multi_target:
        K = op.Shape(target, start=1, end=2)
        pullback, head = _sweep_each(op, logits, cotangent, K, at, rules)
    else:
        (pullback,) = pull_back(op, {logits: cotangent}, [at], rules)
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
    pullback = end if pullback is image else end.producer().inputs[0]
    graph.sort()
    pullback.name = PULLBACK
    graph.outputs.append(pullback)
    pullback.shape = ir.Shape(shape)
    return op, cotangent


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
