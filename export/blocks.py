"""What scoring each layer's tokens takes: the blocks of a transformer, and a head that pools."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from onnxplain.export import places
from onnxplain.export.autodiff import dependents
from onnxplain.export.grids import Layer, Tokens, placed


def pools(weights: Sequence[ir.Value]) -> bool:
    """Whether the last of several layers of attention is of fewer that look than are looked at."""
    sizes = places.sizes_of(weights[-1])
    return len(weights) > 1 and sizes[-2] < sizes[-1]


def blocks_of(
    nodes: Sequence[ir.Node],
    weights: Sequence[ir.Value],
    cuts: Sequence[ir.Value],
    ends: Collection[ir.Value],
) -> list[ir.Value] | None:
    """The tokens behind each layer's block; None where a block does not end in some.

    They are, of the `cuts` that all goes through, the last before the next layer attends; behind
    the last layer, where a norm may follow, as many on as in the one before.
    """
    found: list[ir.Value] = []
    number = 0
    for layer, following in zip(weights, [*weights[1:], None], strict=True):
        until = ends if following is None else [following]
        behind = dependents(nodes, [layer])
        within = [y for y in cuts if y in behind and not dependents(nodes, [y]).isdisjoint(until)]
        if following is not None:
            number = len(within)
        if not 0 < number <= len(within):
            return None
        found.append(within[number - 1])
    return found


def of_tokens(
    cuts: Sequence[ir.Value], found: dict[ir.Value, places.Boxes], tokens: Tokens
) -> list[ir.Value]:
    """Those of the values that hold the same tokens."""

    def lies(layer: Layer | str) -> bool:
        if isinstance(layer, str) or layer.tokens is None:
            return False
        return (layer.tokens.count, layer.tokens.order) == (tokens.count, tokens.order)

    return [y for y in cuts if lies(placed(y, found.get(y)))]
