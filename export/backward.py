"""The backward pass of an explain graph, laid behind its canonical forward."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.contract.explain import PULLBACK, TARGET, TEMPERATURE
from onnxplain.export.autodiff import pull_back
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.heads import activation_map, one_hot
from onnxplain.export.lower import lower
from onnxplain.export.methods import Method
from onnxplain.export.methods.method import Temperature
from onnxplain.export.tensors import dims
from onnxplain.export.vmap import vmap
from onnxplain.kernels.calls import keep_calls
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
    """Add the backward pass to a canonical forward graph, in place (the contract: design §2).

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
    batch = dims(image)[0]
    shape = [batch, ir.SymbolicDim("targets")] if multi_target else [batch]
    target = builder.input(TARGET, ir.DataType.INT64, shape)
    taken: dict[str, Temperature | None] = dict(values)
    if live_temperature:
        taken[TEMPERATURE] = builder.input(TEMPERATURE, image.dtype, [])

    cotangent = one_hot(op, logits, target)
    if multi_target:
        K = op.Shape(target, start=1, end=2)
        several = op.Transpose(cotangent, perm=[1, 0, 2])
        cotangent = op.Squeeze(op.Slice(cotangent, [0], [1], [1]), [1])  # one of them, to trace
    head = len(graph)
    (pullback,) = pull_back(op, {logits: cotangent}, [at], method.rules(taken, op))
    if multi_target:
        backward = list(graph)[head:]
        head = len(graph)
        pullback = vmap(op, backward, {cotangent: several}, K)[pullback]
    if method.times_input:
        pullback = op.Mul(pullback, image)
    shape += dims(image)[1:]
    if method.activation_map is not None:
        channels = image_axes(image)[2]
        shape[channels - 4] = 1
        nhwc = channels == 3
        pullback = activation_map(op, method.activation_map, at, pullback, image, nhwc)
    elif multi_target:
        pullback = op.Transpose(pullback, perm=[1, 0, 2, 3, 4])
    end = op.Identity(pullback)  # a use by which to find the last node's lowered form
    if isinstance(builder, KernelBuilder):
        keep_calls(model, builder)
    lower(op, list(graph)[head:])
    pullback = end if pullback is image else end.producer().inputs[0]
    graph.sort()
    pullback.name = PULLBACK
    graph.outputs.append(pullback)
    pullback.shape = ir.Shape(shape)
    return op, cotangent
