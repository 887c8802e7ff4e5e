"""Recurrent layers, unrolled over their sequence, whose length is known.

The forward pass has told the states; so all that does not run from step to step is computed for
all steps at once, in tensors [steps, directions, batch, …]. Weights are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Kind, register_vjp
from onnxplain.export.tensors import attribute, size_of, zeros_like

STEP, DIRECTION = -4, -3  # axes


@register_vjp("LSTM", kind=Kind.RECURRENT)
def lstm(op: OpBuilder, node: Node, *gs: ir.Value | None) -> Cotangents:
    """c = f·c₋ + i·ĉ, h = o·tanh(c), with i, o, f (sigmoid) and ĉ (tanh) of x·Wᵀ + h₋·Rᵀ + b."""
    x, w, r, b, _, h0, c0 = [*node.inputs, *[None] * 4][:7]
    _check(node)
    y = node.outputs[0] if node.outputs[0].name else _recomputed(op, node)
    steps = size_of(x, 0)
    h = _in_order(op, node, y)
    g = None if gs[0] is None else _in_order(op, node, gs[0])
    g_h, g_c = (None if v is None else op.Unsqueeze(v, [STEP]) for v in [*gs, None, None][1:3])
    if g is None and g_h is None:
        g = zeros_like(op, y)

    pre = op.Add(_from_image(op, node, x, w, b), op.MatMul(_before(op, h, h0), _transposed(op, r)))
    *gates, candidate = op.Split(pre, axis=-1, num_outputs=4, _outputs=4)
    i, o, f = (op.Sigmoid(gate) for gate in gates)
    candidate = op.Tanh(candidate)
    kept, added = _each(op, f, steps), _each(op, op.Mul(i, candidate), steps)
    cells = [op.Unsqueeze(c0, [STEP]) if c0 is not None else _nothing(op, h)]
    for t in range(steps):
        cells.append(op.Add(op.Mul(kept[t], cells[t]), added[t]))
    c_before, bent = op.Concat(*cells[:-1], axis=STEP), op.Tanh(op.Concat(*cells[1:], axis=STEP))
    slopes = op.Concat(  # of c by i, of h by o, of c by f and of c by ĉ, through their activations
        op.Mul(candidate, _sigmoid_slope(op, i)),
        op.Mul(bent, _sigmoid_slope(op, o)),
        op.Mul(c_before, _sigmoid_slope(op, f)),
        op.Mul(i, _tanh_slope(op, candidate)),
        axis=-1,
    )

    arriving = [None] * steps if g is None else _each(op, g, steps)
    to_cell, slope = _each(op, op.Mul(o, _tanh_slope(op, bent)), steps), _each(op, slopes, steps)
    found = []
    for t in reversed(range(steps)):
        g_h = _total(op, arriving[t], g_h)
        g_c = _total(op, op.Mul(g_h, to_cell[t]), g_c)
        g_pre = op.Mul(op.Concat(g_c, g_h, g_c, g_c, axis=-1), slope[t])
        found.append(g_pre)
        g_h, g_c = op.MatMul(g_pre, r), op.Mul(g_c, kept[t])
    first = [op.Squeeze(v, [STEP]) for v in (g_h, g_c)]
    return [_to_image(op, node, found, w), *[_no_weight(node)] * 4, *first]


@register_vjp("GRU", kind=Kind.RECURRENT)
def gru(op: OpBuilder, node: Node, *gs: ir.Value | None) -> Cotangents:
    """h = (1 − z)·n + z·h₋ with n = tanh(xₙ + r·hₙ), z and r sigmoids, as PyTorch has it."""
    x, w, recurrence, b, _, h0 = [*node.inputs, *[None] * 3][:6]
    _check(node)
    y = node.outputs[0] if node.outputs[0].name else _recomputed(op, node)
    steps = size_of(x, 0)
    h = _in_order(op, node, y)
    g = None if gs[0] is None else _in_order(op, node, gs[0])
    g_h = op.Unsqueeze(gs[1], [STEP]) if len(gs) > 1 and gs[1] is not None else None

    before = _before(op, h, h0)
    by_image = _from_image(op, node, x, w, b, half=0)
    by_state = op.MatMul(before, _transposed(op, recurrence))
    if b is not None:
        by_state = op.Add(by_state, _bias(op, b, half=1))
    z_x, r_x, n_x = op.Split(by_image, axis=-1, num_outputs=3, _outputs=3)
    z_h, r_h, n_h = op.Split(by_state, axis=-1, num_outputs=3, _outputs=3)
    z, r = op.Sigmoid(op.Add(z_x, z_h)), op.Sigmoid(op.Add(r_x, r_h))
    n = op.Tanh(op.Add(n_x, op.Mul(r, n_h)))
    by_n = op.Mul(op.Sub(1.0, z), _tanh_slope(op, n))
    by_r = op.Mul(op.Mul(by_n, n_h), _sigmoid_slope(op, r))
    by_z = op.Mul(op.Sub(before, n), _sigmoid_slope(op, z))

    arriving = [None] * steps if g is None else _each(op, g, steps)
    kept = _each(op, z, steps)
    of_image = _each(op, op.Concat(by_z, by_r, by_n, axis=-1), steps)
    of_state = _each(op, op.Concat(by_z, by_r, op.Mul(by_n, r), axis=-1), steps)
    found = []
    for t in reversed(range(steps)):
        g_h = _total(op, arriving[t], g_h)
        thrice = op.Concat(g_h, g_h, g_h, axis=-1)
        found.append(op.Mul(thrice, of_image[t]))
        through = op.MatMul(op.Mul(thrice, of_state[t]), recurrence)
        g_h = op.Add(op.Mul(g_h, kept[t]), through)
    first = op.Squeeze(g_h, [STEP])
    return [_to_image(op, node, found, w), *[_no_weight(node)] * 4, first]


def _no_weight(node: Node) -> Callable[[], ir.Value]:
    def refuse() -> ir.Value:
        raise NoRuleError(
            f"no rule for {node.op_type} with respect to its weights, at node {node.name!r}, whose "
            "sequence is of a length that is known at run time only"
        )

    return refuse


def unusual(node: Node) -> list[str]:
    """What a layer has that its rule is not for."""
    directions = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
    usual = USUAL.get(node.op_type, []) * directions
    inputs = [*node.inputs, *[None] * 7]
    found = {
        "one gate": node.op_type not in USUAL,
        "sequence_lens": inputs[4] is not None,
        "peepholes": inputs[7] is not None,
        "clip": "clip" in node.attributes,
        "layout": attribute(node, "layout", 0),
        "input_forget": attribute(node, "input_forget", 0),
        "linear_before_reset = 0": node.op_type == "GRU"
        and not attribute(node, "linear_before_reset", 0),
        "activations": list(node.attributes.get_strings("activations", usual)) != usual,
    }
    return [name for name, is_so in found.items() if is_so]


USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
"""The activations of the layers that have a rule."""


def _check(node: Node) -> None:
    if names := unusual(node):
        raise NoRuleError(
            f"no rule for {node.op_type} with {', '.join(names)}, at node {node.name!r}, whose "
            "sequence is of a length that is known at run time only"
        )


def _recomputed(op: OpBuilder, node: Node) -> ir.Value:
    """All states, where the network asked for the last one alone."""
    attributes = {name: a.value for name, a in node.attributes.items()}
    return op.builder.call_op(node.op_type, node.inputs, attributes, version=op.version, outputs=1)


def _in_order(op: OpBuilder, node: Node, value: ir.Value) -> ir.Value:
    """The steps in the order in which each direction takes them, or back again."""
    direction = node.attributes.get_string("direction", "forward")
    if direction == "forward":
        return value
    if direction == "reverse":
        return _flipped(op, value)
    ahead, back = op.Split(value, axis=DIRECTION, num_outputs=2, _outputs=2)
    return op.Concat(ahead, _flipped(op, back), axis=DIRECTION)


def _flipped(op: OpBuilder, value: ir.Value) -> ir.Value:
    return op.Slice(value, [-1], [int(np.iinfo(np.int64).min)], [STEP], [-1])


def _nothing(op: OpBuilder, h: ir.Value) -> ir.Value:
    return op.Mul(op.Slice(h, [0], [1], [STEP]), 0.0)


def _before(op: OpBuilder, h: ir.Value, h0: ir.Value | None) -> ir.Value:
    """The state that each step starts from."""
    first = op.Unsqueeze(h0, [STEP]) if h0 is not None else _nothing(op, h)
    return op.Concat(first, op.Slice(h, [0], [-1], [STEP]), axis=STEP)


def _transposed(op: OpBuilder, weight: ir.Value) -> ir.Value:
    return op.Transpose(weight, perm=[0, 2, 1])


def _bias(op: OpBuilder, b: ir.Value, half: int | None) -> ir.Value:
    """Of x (half 0), of h (half 1), or both together: [directions, 1, gates]."""
    halves = op.Split(b, axis=-1, num_outputs=2, _outputs=2)
    return op.Unsqueeze(op.Add(*halves) if half is None else halves[half], [-2])


def _from_image(
    op: OpBuilder,
    node: Node,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None,
    half: int | None = None,
) -> ir.Value:
    """x·Wᵀ + b, in order."""
    product = op.MatMul(op.Unsqueeze(x, [DIRECTION]), _transposed(op, w))
    product = _in_order(op, node, product)
    return product if b is None else op.Add(product, _bias(op, b, half))


def _to_image(op: OpBuilder, node: Node, found: Sequence[ir.Value], w: ir.Value) -> ir.Value:
    """Σ over directions of g·W; `found` holds the steps' g, last step first."""
    together = _in_order(op, node, op.Concat(*reversed(found), axis=STEP))
    return op.ReduceSum(op.MatMul(together, w), [DIRECTION], keepdims=0)


def _each(op: OpBuilder, value: ir.Value, steps: int) -> Sequence[ir.Value]:
    if steps == 1:
        return [value]
    return list(op.Split(value, [1] * steps, axis=STEP, _outputs=steps))


def _total(op: OpBuilder, a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
    return op.Add(a, b) if a is not None and b is not None else a if b is None else b


def _sigmoid_slope(op: OpBuilder, y: ir.Value) -> ir.Value:
    return op.Mul(y, op.Sub(1.0, y))


def _tanh_slope(op: OpBuilder, y: ir.Value) -> ir.Value:
    return op.Sub(1.0, op.Mul(y, y))
