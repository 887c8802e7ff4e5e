"""Recurrent layers in all their forms, step by step; the usual ones have a rule of their own.

As ONNX's pages of LSTM, GRU and RNN have them: peepholes, clipping, other activations, sequences of
several lengths, weights that depend on the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.emit import Emitted, Emitter, check_rounds, integers
from onnxplain.export.tensors import attribute, size_of
from onnxplain.export.values import varies
from onnxplain.export.vjps.recurrent import unusual

Activation = Callable[[ir.Value], ir.Value]


def needs_spelling(node: ir.Node) -> bool:
    """Whether its length is known, and its rule is none for it."""
    x = node.inputs[0]
    if x is None or x.shape is None or not isinstance(x.shape[_time(node)], int):
        return False
    weights = [v for v in node.inputs[1:4] if v is not None]
    return bool(unusual(node)) or any(map(varies, weights)) or ROUNDED in node.metadata_props


ROUNDED = "onnxplain.rounded"
"""Of a node's metadata: what it multiplies its weights by is quantised dynamically."""


def dynamic_steps(emit: Emitter, x: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """x, rounded to 8 bits between its least and its greatest number: whole numbers, as floats,
    and what they are to be multiplied by."""
    q, scale, zero = emit.many("DynamicQuantizeLinear", 3, x)
    steps = emit("DequantizeLinear", q, np.array(1, np.float32), zero)
    steps.type = ir.TensorType(ir.DataType.FLOAT)
    return steps, scale


def _time(node: ir.Node) -> int:
    return 1 if attribute(node, "layout", 0) else 0


def recurrent(emit: Emitter, node: ir.Node) -> Emitted:
    """Y [steps, directions, batch, hidden], and the last states of each direction."""
    x = node.inputs[0]
    assert x is not None
    batch_first = attribute(node, "layout", 0)
    if batch_first:
        x = emit("Transpose", x, perm=[1, 0, 2])
    direction = node.attributes.get_string("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    steps = size_of(node.inputs[0], _time(node))  # type: ignore[arg-type]
    check_rounds(node, steps)
    parts = [
        Direction(emit, node, d, reverse=direction == "reverse" or d == 1).run(x, steps)
        for d in range(count)
    ]
    y = emit("Concat", *(emit("Unsqueeze", ys, integers(1)) for ys, *_ in parts), axis=1)
    last = [
        emit("Concat", *(emit("Unsqueeze", state, integers(0)) for state in states), axis=0)
        for states in zip(*(rest for _, *rest in parts), strict=True)
    ]
    if batch_first:
        y = emit("Transpose", y, perm=[2, 0, 1, 3])
        last = [emit("Transpose", state, perm=[1, 0, 2]) for state in last]
    return [y, *last][: len(node.outputs)]


_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


class Direction:
    """One direction of a layer: its weights, where it is the `d`-th, and its activations."""

    def __init__(self, emit: Emitter, node: ir.Node, d: int, reverse: bool) -> None:
        self.emit, self.node, self.d, self.reverse = emit, node, d, reverse
        self.given = [*node.inputs, *[None] * 7][:8]
        self.w, self.r, b, p = (self.own(self.given[i]) for i in (1, 2, 3, 7))
        self.b_x: ir.Value | None = None
        b_h: ir.Value | None = None
        if b is not None:
            self.b_x, b_h = self.cut(b, [_GATES[node.op_type] * self.hidden] * 2, 0)
        self.by_state = self.products(emit("Transpose", self.r, perm=[1, 0]), b_h)
        self.peeps = None if p is None else self.cut(p, [self.hidden] * 3, 0)
        self.f, *self.others = self.activations()

    @property
    def hidden(self) -> int:
        declared: int = attribute(self.node, "hidden_size", 0)
        return declared or size_of(self.given[2], -1)  # type: ignore[arg-type]

    def run(self, x: ir.Value, steps: int) -> list[ir.Value]:
        """The hidden states [steps, batch, hidden] of x [steps, batch, …], and the last states."""
        emit, lengths = self.emit, self.given[4]
        projected = self.product(x, emit("Transpose", self.w, perm=[1, 0]))
        if self.b_x is not None:
            projected = emit("Add", projected, self.b_x)
        slices = [emit("Squeeze", part, integers(0)) for part in _in_steps(emit, projected, steps)]
        states = self.first(x)
        ys: list[ir.Value] = []
        for x_t in slices[:: -1 if self.reverse else 1]:
            new = self.step(x_t, states)
            y = new[0]
            if lengths is not None:  # after which nothing changes
                t = steps - 1 - len(ys) if self.reverse else len(ys)
                going = emit("Less", np.array(t, np.int32), lengths)
                going = emit("Unsqueeze", going, integers(1))
                y = emit("Where", going, y, np.zeros(1, np.float32))
                new = [emit("Where", going, a, b) for a, b in zip(new, states, strict=True)]
            ys.append(emit("Unsqueeze", y, integers(0)))
            states = new
        if lengths is not None:  # where ONNX Runtime's last states are 0 for one without a step
            some = emit("Unsqueeze", emit("Less", np.array(0, np.int32), lengths), integers(1))
            states = [emit("Where", some, state, np.zeros(1, np.float32)) for state in states]
        return [emit("Concat", *ys[:: -1 if self.reverse else 1], axis=0), *states]

    def first(self, x: ir.Value) -> list[ir.Value]:
        """The states before the first step, zeros unless they are given."""
        emit = self.emit
        batch, hidden = emit("Shape", x, start=1, end=2), emit("Shape", self.r, start=1, end=2)
        zero = emit("Expand", np.zeros(1, np.float32), emit("Concat", batch, hidden, axis=0))
        axis, own = attribute(self.node, "layout", 0), np.array(self.d)
        known = self.given[5 : 7 if self.node.op_type == "LSTM" else 6]
        return [zero if s is None else emit("Gather", s, own, axis=axis) for s in known]

    def step(self, x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
        if self.node.op_type == "LSTM":
            return self.lstm(x, *states)
        return [(self.gru if self.node.op_type == "GRU" else self.rnn)(x, *states)]

    def own(self, value: ir.Value | None) -> ir.Value | None:
        return None if value is None else self.emit("Gather", value, np.array(self.d), axis=0)

    def cut(self, x: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """A weight in parts; a constant's Split would not be folded."""
        ends = np.cumsum(sizes)
        return [
            self.emit("Slice", x, integers(end - size), integers(end), integers(axis))
            for end, size in zip(ends, sizes, strict=True)
        ]

    def products(self, r: ir.Value, b: ir.Value | None) -> Sequence[Activation]:
        """h → h·Rᵀ + b; of a GRU that resets before its product, that of z and r, and that of n."""
        emit, parts = self.emit, [(r, b)]
        if self.node.op_type == "GRU" and not attribute(self.node, "linear_before_reset", 0):
            sizes = [2 * self.hidden, self.hidden]
            rs = self.cut(r, sizes, 1)
            bs = [None, None] if b is None else self.cut(b, sizes, 0)
            parts = list(zip(rs, bs, strict=True))

        def product(r: ir.Value, b: ir.Value | None, h: ir.Value) -> ir.Value:
            made = self.product(h, r)
            return made if b is None else emit("Add", made, b)

        return [partial(product, *part) for part in parts]

    def product(self, x: ir.Value, w: ir.Value) -> ir.Value:
        if ROUNDED not in self.node.metadata_props:
            return self.emit("MatMul", x, w)
        steps, scale = dynamic_steps(self.emit, x)
        return self.emit("Mul", self.emit("MatMul", steps, w), scale)

    def rnn(self, x: ir.Value, h: ir.Value) -> ir.Value:
        return self.f(self.emit("Add", x, self.by_state[0](h)))

    def gru(self, x: ir.Value, h: ir.Value) -> ir.Value:
        """h' = (1 − z)·n + z·h, the state reset before or after its product."""
        emit, g = self.emit, self.others[0]
        z_x, r_x, n_x = emit.many("Split", 3, x, axis=1, num_outputs=3)
        first, *after = self.by_state
        count = 2 if after else 3
        z_h, r_h, *n_h = emit.many("Split", count, first(h), axis=1, num_outputs=count)
        z, r = self.f(emit("Add", z_x, z_h)), self.f(emit("Add", r_x, r_h))
        of_state = after[0](emit("Mul", r, h)) if after else emit("Mul", r, *n_h)
        n = g(emit("Add", n_x, of_state))
        return emit("Add", n, emit("Mul", z, emit("Sub", h, n)))

    def lstm(self, x: ir.Value, h: ir.Value, c: ir.Value) -> list[ir.Value]:
        """c' = f·c + i·ĉ, h' = o·h(c'); peepholes look at c, that of o at c'."""
        emit, (g, last) = self.emit, self.others[:2]
        i, o, f, candidate = emit.many(
            "Split", 4, emit("Add", x, self.by_state[0](h)), axis=1, num_outputs=4
        )
        peeps = self.peeps

        def seeing(gate: ir.Value, k: int, cell: ir.Value) -> ir.Value:
            return gate if peeps is None else emit("Add", gate, emit("Mul", peeps[k], cell))

        i = self.f(seeing(i, 0, c))
        one = np.ones(1, np.float32)
        coupled = attribute(self.node, "input_forget", 0)
        f = emit("Sub", one, i) if coupled else self.f(seeing(f, 2, c))
        c = emit("Add", emit("Mul", f, c), emit("Mul", i, g(candidate)))
        return [emit("Mul", self.f(seeing(o, 1, c)), last(c)), c]

    def activations(self) -> list[Activation]:
        usual = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
        own = usual[self.node.op_type]
        names = list(self.node.attributes.get_strings("activations", own * (self.d + 1)))
        alphas, betas = (
            list(self.node.attributes.get_floats(f"activation_{which}", []))
            for which in ("alpha", "beta")
        )
        found = []
        for name in names:  # each takes from the lists what it knows
            given = {}
            for key, values in (("alpha", alphas), ("beta", betas)):
                if key in PARAMETERS.get(name, {}):
                    given[key] = values.pop(0) if values else PARAMETERS[name][key]
            found.append(self.activation(name, given))
        return found[self.d * len(own) :][: len(own)]

    def activation(self, name: str, given: dict[str, float]) -> Activation:
        emit, clip = self.emit, self.node.attributes.get_float("clip", 0.0)

        def apply(x: ir.Value) -> ir.Value:
            if clip:
                x = emit("Clip", x, *(np.array(b, np.float32) for b in (-clip, clip)))
            if name in ("Affine", "ScaledTanh"):
                alpha, beta = (np.array(given[k], np.float32) for k in ("alpha", "beta"))
                if name == "Affine":
                    return emit("Add", emit("Mul", x, alpha), beta)
                return emit("Mul", emit("Tanh", emit("Mul", x, beta)), alpha)
            return emit(name, x, **given)

        return apply


def _in_steps(emit: Emitter, x: ir.Value, steps: int) -> Sequence[ir.Value]:
    return [x] if steps == 1 else emit.many("Split", steps, x, axis=0, num_outputs=steps)


PARAMETERS: dict[str, dict[str, float]] = {
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
}
"""The parameters of those activations that have any, with their defaults."""
