"""The attention of a vision transformer: which token looks at which, layer by layer, read from the
graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export import places
from onnxplain.export.autodiff import between, dependents, operator_name
from onnxplain.export.blocks import blocks_of, of_tokens, pools
from onnxplain.export.grids import Tokens, placed
from onnxplain.export.layers import cut_values
from onnxplain.export.methods import Method
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import input_of, rank
from onnxplain.export.values import is_weight, varies


@dataclass(frozen=True)
class Attended:
    """A transformer's attention, in which all layers see the same tokens.

    Attributes:
        weights: of each layer [N, heads, T, T], the first layer first: a row for each token that
            looks.
        tokens: where in the image the T tokens are.
        read: the first and the last of the tokens that the outputs are computed from.
        blocks: for a method that scores each layer's tokens: what these are behind the layer's
            block, [N, T, D]; the last are what the head reads. Of one layer alone there is none.
        pooled: the head's own attention [N, heads, queries, T], if it pools the tokens so.
    """

    weights: Sequence[ir.Value]
    tokens: Tokens
    read: tuple[int, int]
    blocks: Sequence[ir.Value] = ()
    pooled: ir.Value | None = None

    @property
    def asked(self) -> Sequence[ir.Value]:
        """The attention of which a map is made, layer by layer."""
        return self.weights if self.pooled is None else [self.pooled] * len(self.weights)

    @property
    def in_words(self) -> str:
        if self.pooled is not None:
            return (
                f"the map is of the head's attention to {self.tokens.in_words}, behind each of "
                f"{len(self.weights)} layers"
            )
        first, last = self.read
        one = f"token {first} of {self.tokens.count} sees"
        several = f"tokens {first} to {last} of {self.tokens.count} see"
        return (
            f"the map is of {len(self.weights)} layers of attention, {self.tokens.in_words}, as "
            f"{one if first == last else several} them"
        )


def attention_of(graph: ir.Graph, ends: Sequence[ir.Value], method: Method) -> Attended:
    """The attention between the image and the ends.

    Raises:
        SourceError: there is none, or layers attend to different tokens (as within windows), or not
            one after the other, or to what is no token of the image; the message says which.
    """
    nodes = between(graph, graph.inputs[:1], ends)
    by_layer = {part.by_layer for part in method.parts if part.attention_map is not None}
    several = "scores the tokens of" if by_layer == {True} else "multiplies the attention of"

    def refusal(why: str) -> SourceError:
        return SourceError(
            f"{method.name} {several} all layers, and {why}; choose another method, "
            "such as semantic, attn-lrp or gradcam"
        )

    products = [node for node in nodes if weighs_values(node)]
    if not products:
        raise refusal("the network has none (no Softmax whose rows weigh values)")
    weights, values = ([input_of(node, i) for node in products] for i in (0, 1))
    cuts = cut_values(graph, lambda y: rank(y) > 2, ends) if True in by_layer else []
    found = places.of(graph, nodes, [*values, *cuts])
    pooled = weights.pop() if by_layer == {True} and pools(weights) else None
    tokens = [
        _tokens(*each, found, refusal) for each in zip(weights, values, strict=pooled is None)
    ]
    if any(one.order != tokens[0].order or one.count != tokens[0].count for one in tokens):
        raise refusal("its layers attend to different tokens")
    asked = [*weights, *([] if pooled is None else [pooled])]
    for earlier, later in pairwise(asked):
        if later is earlier or later not in dependents(nodes, [earlier]):
            raise refusal("some are beside each other, not one after the other")
    blocks: list[ir.Value] | None = []
    if True in by_layer and len(weights) > 1:
        within = of_tokens(cuts, found, tokens[0])
        blocks = blocks_of(nodes, weights, within, [pooled] if pooled else ends)
    if blocks is None:
        raise refusal("its blocks do not end in tokens that all of it goes through")
    read = _read(graph, products[len(weights) - 1].outputs[0], ends)
    return Attended(weights, tokens[0], read, blocks, pooled)


def weighs_values(node: ir.Node) -> bool:
    """Whether a node is attention's weights times values that depend on what is explained by."""
    if node.op_type != "MatMul":
        return False
    weights, values = node.inputs
    return is_weight(weights) and varies(values) and probabilities(weights) is not None


def probabilities(weights: ir.Value | None) -> ir.Value | None:
    """What a Softmax over the keys, the last axis, gave, of which these weights are made; None if
    they are of something else."""
    waiting = [weights]
    while waiting:
        x = waiting.pop()
        node = None if x is None else x.producer()
        if node is None:
            continue
        if row_of(operator_name(node)).kind is not Kind.WEIGHTS:
            waiting.extend(y for y in node.inputs if varies(y))
        elif node.op_type == "AttentionWeights":
            return x if node.attributes.get_int("axis", -1) == -1 else None
    return None


def _tokens(
    weights: ir.Value,
    values: ir.Value,
    found: dict[ir.Value, places.Boxes],
    refusal: Callable[[str], SourceError],
) -> Tokens:
    """Which of the tokens that values [N, heads, T, D] are of are the grid's."""
    shape = f"that of {weights.name!r} is {weights.shape}"
    sizes, token_axis = places.sizes_of(weights), rank(values) - 2
    if rank(weights) != rank(values) or rank(weights) < 3 or sizes[-1] != sizes[-2]:
        raise refusal(f"{shape}, not from each token to each")
    layer = placed(values, found.get(values))
    if isinstance(layer, str):
        raise refusal(f"{shape}, and what it attends to are no tokens of the image: {layer}")
    tokens = layer.tokens
    if tokens is None or tokens.perm[:2] != (0, token_axis) or tokens.count != sizes[-1]:
        raise refusal(f"{shape}, within windows or parts of the image")
    return tokens


def _read(graph: ir.Graph, attended: ir.Value, ends: Collection[ir.Value]) -> tuple[int, int]:
    """The first and the last token of the last layer's result that the ends see."""
    sizes = places.sizes_of(attended)
    number = np.arange(sizes[-2], dtype=float)
    at = np.zeros((*[1] * (len(sizes) - 2), sizes[-2], 1, 6))
    at[..., 1], at[..., 4] = number[:, None], -number[:, None]
    start = {attended: at}
    seen = places.sees(graph, between(graph, start, ends), start, ends)
    low, high = (min(np.nanmin(seen[end][..., i]) for end in ends if end in seen) for i in (1, 4))
    return int(low), int(-high)
