"""The rules of relevance for layers with weights: convolutions and products of matrices.

A rule puts other values, weights and biases in the place of a layer's own, in one part or in
several. Each value of a part takes what it contributes to z, the sum of all parts:

    R_i = Σ_parts x'_i Σ_j w'_ij R_j / z_j        z_j = Σ_parts (Σ_i x'_i w'_ij + b'_j)

z is stabilised: ε is added to it in the direction of its sign, that of 0 being +1 (as in zennit).
Where the graph tells that no x is negative, the parts of x⁻ are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import NoRuleError, SourceError
from onnxplain.export.autodiff import Cotangents, Node, between
from onnxplain.export.methods.placement import is_first
from onnxplain.export.methods.relevance import (
    layer_on,
    positive,
    pulled,
    receivers,
    stabilised,
    total,
)
from onnxplain.export.replay import replay
from onnxplain.export.tensors import constant
from onnxplain.export.values import non_negative

SMALL = 1e-6


class Part(NamedTuple):
    """What stands in the place of a layer's value, weight and bias."""

    x: ir.Value
    w: ir.Value
    b: ir.Value | None = None


Change: TypeAlias = Callable[[ir.Value], ir.Value]


@dataclass(frozen=True)
class Layer:
    """A layer as it treats one of its operands.

    Attributes:
        at: which operand of the node that is.
        x, w, b: the operand, what it is weighted by, and the bias, if there is one.
        changed: attributes of which w takes the place.
    """

    op: OpBuilder
    node: Node
    at: int
    x: ir.Value
    w: ir.Value
    b: ir.Value | None
    changed: dict[str, Any]

    def on(self, part: Part) -> Node:
        """The layer once more, on these."""
        operands = (part.x, part.w) if self.at == 0 else (part.w, part.x)
        given = [*operands, *([] if part.b is None else [part.b])]
        return layer_on(self.op, self.node, given, **self.changed)

    def by_sign(self, plus: Change, minus: Change, bias: bool = True) -> list[Part]:
        """x⁺ under plus(w) and plus(b), and x⁻ under minus(w)."""
        op = self.op
        b = None if self.b is None or not bias else plus(self.b)
        parts = [Part(positive(op, self.x), plus(self.w), b)]
        if not non_negative(self.x):
            parts.append(Part(op.Min(self.x, 0.0), minus(self.w)))
        return parts

    def shares(
        self, parts: Sequence[Part], R: ir.Value, divided: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        """What the values of the parts take, `divided` being the share R / z of a given z."""
        op, nodes = self.op, [self.on(part) for part in parts]
        share = divided(total(op, [node.outputs[0] for node in nodes]))
        pairs = zip(parts, nodes, strict=True)
        return total(op, [op.Mul(part.x, pulled(op, y, share, self.at)) for part, y in pairs])

    def spread(self, w: ir.Value, b: ir.Value | None, R: ir.Value, epsilon: float) -> ir.Value:
        """Σ_j w_ij R_j / (Σ_i w_ij + b_j + ε): by these weights alone, whatever x is."""
        node = self.on(Part(ones(self.op, self.x), w, b))
        z = self.op.Add(node.outputs[0], epsilon)
        return pulled(self.op, node, self.op.Div(R, z), self.at)


def _each(
    op: OpBuilder, node: Node, R: ir.Value, take: Callable[[Layer, ir.Value], ir.Value]
) -> Cotangents:
    """What each operand takes, among the first two, of its equal share of R."""
    if len(node.inputs) > 2 and node.op_type == "Einsum":
        raise NoRuleError(f"no relevance rule for an Einsum of three operands: {node.name!r}")
    takers = [i for i in receivers(node) if i < 2]
    share = op.Mul(R, 1.0 / len(takers)) if len(takers) > 1 else R
    operands, changed = list(node.inputs[:2]), dict[str, Any]()
    if node.op_type == "Gemm" and (alpha := node.attributes.get_float("alpha", 1.0)) != 1.0:
        operands[1], changed = op.Mul(operands[1], alpha), {"alpha": 1.0}
    b = node.inputs[2] if len(node.inputs) > 2 else None
    result: list[ir.Value | None] = [None, None]
    for i in takers:
        layer = Layer(op, node, i, operands[i], operands[1 - i], b, changed)
        result[i] = take(layer, share)
    return result


def ones(op: OpBuilder, x: ir.Value) -> ir.Value:
    """1 for every element of x."""
    return op.Add(op.Mul(x, 0.0), 1.0)


# ----- the rules -----


def z_epsilon(op: OpBuilder, node: Node, R: ir.Value, epsilon: float) -> Cotangents:
    """ε (Bach et al. 2015): x w / (y + ε sign y), the layer's own output, its bias included."""
    share = op.Div(R, stabilised(op, node.outputs[0], epsilon))

    def take(layer: Layer, share: ir.Value) -> ir.Value:
        return op.Mul(node.inputs[layer.at], pulled(op, node, share, layer.at))

    return _each(op, node, share, take)


def z_plus(op: OpBuilder, node: Node, R: ir.Value, epsilon: float, bias: bool) -> Cotangents:
    """z⁺ (Montavon et al. 2017): (x⁺ w⁺ + x⁻ w⁻) / (z + ε). With `bias`, b⁺ is part of z."""

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        parts = layer.by_sign(lambda v: positive(op, v), lambda v: op.Min(v, 0.0), bias)
        parts = parts[:1] if non_negative(layer.w) else parts
        return layer.shares(parts, R, lambda z: op.Div(R, op.Add(z, epsilon)))

    return _each(op, node, R, take)


def alpha_beta(
    op: OpBuilder, node: Node, R: ir.Value, beta: float = 1.0, stabilizer: float = SMALL
) -> Cotangents:
    """αβ (Bach et al. 2015): (1 + β) z⁺ − β z⁻, the shares of what speaks for y and against it.

    z⁺ is that of x⁺ w⁺ + x⁻ w⁻ and b⁺, z⁻ that of x⁺ w⁻ + x⁻ w⁺ and b⁻.
    """

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        up, down = (lambda v: positive(op, v)), (lambda v: op.Min(v, 0.0))
        speaking = layer.shares(
            layer.by_sign(up, down), R, lambda z: op.Div(R, op.Add(z, stabilizer))
        )
        against = layer.shares(
            layer.by_sign(down, up), R, lambda z: op.Div(R, op.Sub(z, stabilizer))
        )
        return op.Add(speaking, op.Mul(op.Sub(speaking, against), beta))

    return _each(op, node, R, take)


def gamma(
    op: OpBuilder, node: Node, R: ir.Value, gamma: float = 0.25, stabilizer: float = SMALL
) -> Cotangents:
    """γ (Montavon et al. 2019; for x of any sign Andéol et al. 2021).

    Where y > 0, what raises z counts 1 + γ times: x⁺ (w + γ w⁺) + x⁻ (w + γ w⁻), b + γ b⁺. Where
    y < 0, what lowers it: x⁺ (w + γ w⁻) + x⁻ (w + γ w⁺), b + γ b⁻. Where y = 0, nothing.
    """

    def up(v: ir.Value) -> ir.Value:
        return op.Add(v, op.Mul(positive(op, v), gamma))

    def down(v: ir.Value) -> ir.Value:
        return op.Add(v, op.Mul(op.Min(v, 0.0), gamma))

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        y = node.outputs[0]
        where_up = layer.shares(
            layer.by_sign(up, down),
            R,
            lambda z: op.Where(op.Greater(y, 0.0), op.Div(R, op.Add(z, stabilizer)), 0.0),
        )
        where_down = layer.shares(
            layer.by_sign(down, up),
            R,
            lambda z: op.Where(op.Less(y, 0.0), op.Div(R, op.Sub(z, stabilizer)), 0.0),
        )
        return op.Add(where_up, where_down)

    return _each(op, node, R, take)


def flat(op: OpBuilder, node: Node, R: ir.Value, stabilizer: float = SMALL) -> Cotangents:
    """Flat (Lapuschkin et al. 2019): as much to every value that a sum reads."""

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        return layer.spread(ones(op, layer.w), None, R, stabilizer)

    return _each(op, node, R, take)


def w_square(op: OpBuilder, node: Node, R: ir.Value, stabilizer: float = SMALL) -> Cotangents:
    """w² (Montavon et al. 2017): by w² / (Σ w² + b²), whatever the values are."""

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        b = None if layer.b is None else op.Mul(layer.b, layer.b)
        return layer.spread(op.Mul(layer.w, layer.w), b, R, stabilizer)

    return _each(op, node, R, take)


# ----- z^B, of what has bounds -----


@dataclass(frozen=True)
class Pixels:
    """The least and the greatest pixel in the network's input, as they broadcast to an image."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @classmethod
    def of(cls, pre: Preprocessing) -> Pixels:
        """0 and 1, normalised."""
        shape = [-1] if pre.layout == "NHWC" else [-1, 1, 1]
        mean, std = (np.reshape(np.array(v, np.float64), shape) for v in (pre.mean, pre.std))
        return cls(-mean / std, (1 - mean) / std)


def box(
    op: OpBuilder,
    node: Node,
    R: ir.Value,
    stabilizer: float = SMALL,
    pixels: Pixels | None = None,
) -> Cotangents:
    """z^B (Montavon et al. 2017): x w − l w⁺ − h w⁻, between l and h, the least x and the greatest.

    The biases of the three cancel.

    Raises:
        SourceError: the layer is none of the first, or what is explained has no pixels.
    """
    if pixels is None:
        raise SourceError(
            "the rule box needs an image, whose pixels have bounds; for the first layer choose "
            "another rule, such as w-square or flat"
        )
    if not is_first(node):
        raise SourceError(
            f"the rule box is for the first layers, which read pixels, and {node.name!r} reads "
            "what another layer computed; choose another rule for it"
        )

    def take(layer: Layer, R: ir.Value) -> ir.Value:
        low, high = _bounds(op, layer.x, pixels)
        parts = [
            Part(layer.x, layer.w),
            Part(op.Neg(low), positive(op, layer.w)),
            Part(op.Neg(high), op.Min(layer.w, 0.0)),
        ]
        return layer.shares(parts, R, lambda z: op.Div(R, stabilised(op, z, stabilizer)))

    return _each(op, node, R, take)


def _bounds(op: OpBuilder, x: ir.Value, pixels: Pixels) -> tuple[ir.Value, ir.Value]:
    """The least and the greatest that a value is: what comes before it, of images of one pixel."""
    graph = op.builder.graph
    image = graph.inputs[0]
    before = between(graph, [image], [x])
    ends = []
    for pixel in (pixels.low, pixels.high):
        made = {image: op.Expand(constant(op, pixel, image), op.Shape(image))}
        made[image].shape = image.shape
        ends.append(replay(op, before, made)[x])
    low, high = ends
    return (op.Min(low, high), op.Max(low, high)) if before else (low, high)
