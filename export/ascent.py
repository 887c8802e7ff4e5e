"""Feature accentuation in the graph: one step of the ascent as outputs, or all steps unrolled."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import (
    ACCENTUATED,
    ACCENTUATED_LOGITS,
    ALPHA,
    EPS,
    LIMIT,
    NEXT_IMAGE,
    ORIGIN,
    AscentDefaults,
    Preprocessing,
)
from onnxplain.export.autodiff import Node
from onnxplain.export.replay import replay
from onnxplain.export.tensors import constant


def add_step(op: OpBuilder, preprocessing: Preprocessing) -> None:
    """Give an explain graph the output `next_image`, one step on from `image`."""
    graph = op.builder.graph
    image, pullback = graph.inputs[0], graph.outputs[-1]
    origin = op.builder.input(ORIGIN, image.dtype, image.shape)
    alpha, eps, limit = (op.builder.input(name, image.dtype, []) for name in (ALPHA, EPS, LIMIT))
    following = ascent_step(op, image, pullback, origin, alpha, eps, limit, preprocessing)
    _output(graph, following, NEXT_IMAGE, image)


def unroll(
    op: OpBuilder,
    steps: int,
    seed: ir.Value,
    preprocessing: Preprocessing,
    ascent: AscentDefaults,
) -> None:
    """Make an explain graph one call that accentuates: `steps` steps, each clipped, then logits.

    `seed` is the cotangent of the logits: the target, looked up in the first ranking, stays.
    The graph's outputs become `logits` of the image, `accentuated` and `accentuated_logits`.
    """
    graph = op.builder.graph
    image, (logits, pullback) = graph.inputs[0], graph.outputs
    nodes: list[Node] = list(graph)
    alpha, eps, limit = (
        constant(op, np.array(value), image)
        for value in (ascent.alpha, np.inf if ascent.eps is None else ascent.eps, 1.0)
    )
    x = ascent_step(op, image, pullback, image, alpha, eps, limit, preprocessing)
    for _ in range(steps - 1):
        again = replay(op, nodes, {image: x, seed: seed})
        x = ascent_step(op, x, again[pullback], image, alpha, eps, limit, preprocessing)
    final = replay(op, nodes, {image: x, seed: seed})[logits]
    graph.outputs[:] = [logits]
    _output(graph, x, ACCENTUATED, image)
    _output(graph, final, ACCENTUATED_LOGITS, logits)


def ascent_step(
    op: OpBuilder,
    image: ir.Value,
    pullback: ir.Value,
    origin: ir.Value,
    alpha: ir.Value,
    eps: ir.Value,
    limit: ir.Value,
    preprocessing: Preprocessing,
) -> ir.Value:
    """x ← clip(x₀ + P_ε(x + α g/‖g‖₂ − x₀), ±limit) (Satkiewicz, arXiv 2507.22832).

    In the space where pixels are in [-1, 1], norms per image over C×H×W; P_ε shortens a
    displacement longer than ε. `image`, `pullback`, `origin` and the result [N, C, H, W] are in
    the network's own space, where a step of 1 is one of 2 std in that of pixels. `alpha`, `eps`
    and `limit` are scalars, infinite for no bound.
    """
    per_channel = [-1, 1, 1] if preprocessing.layout == "NCHW" else [-1]
    mean = constant(op, np.array(preprocessing.mean).reshape(per_channel), image)
    std = constant(op, np.array(preprocessing.std).reshape(per_channel), image)
    scale = op.Mul(std, 2.0)

    g = op.Div(pullback, scale)
    step = op.Mul(op.Div(g, _norm(op, g)), alpha)
    displacement = op.Add(op.Mul(op.Sub(image, origin), scale), step)
    displacement = op.Mul(displacement, op.Min(op.Div(eps, _norm(op, displacement)), 1.0))
    start = op.Sub(op.Mul(op.Add(op.Mul(origin, std), mean), 2.0), 1.0)
    pixels = op.Clip(op.Add(start, displacement), op.Neg(limit), limit)
    return op.Div(op.Sub(op.Mul(op.Add(pixels, 1.0), 0.5), mean), std)


def _norm(op: OpBuilder, x: ir.Value) -> ir.Value:
    """The L2 norm of each image, [N, 1, 1, 1], of elements whose squares may underflow; never 0."""
    tiny = float(np.finfo(np.float32).tiny)
    largest = op.Max(op.ReduceMax(op.Abs(x), [1, 2, 3], keepdims=1), tiny)
    norm = op.Mul(op.ReduceL2(op.Div(x, largest), [1, 2, 3], keepdims=1), largest)
    return op.Max(norm, tiny)


def _output(graph: ir.Graph, value: ir.Value, name: str, like: ir.Value) -> None:
    value.name, value.shape, value.type = name, like.shape, like.type
    graph.outputs.append(value)
