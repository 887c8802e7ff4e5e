"""What an export may grow to, whatever a small file says.

A network as people write it stays far below. The factor of `within` raises all limits alike, so
that one option does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.errors import SourceError

_factor: ContextVar[float] = ContextVar("budget", default=1.0)


@dataclass(frozen=True)
class Limit:
    """So much of something; `of` says of what: "a network has {count} nodes"."""

    most: int
    of: str

    def check(self, count: float) -> None:
        """
        Raises:
            SourceError: it is more.
        """
        if count > self.most * _factor.get():
            raise SourceError(
                f"{self.of.format(count=f'{count:,.0f}')}, of at most "
                f"{self.most * _factor.get():,.0f}; if you trust the network, a budget= of "
                f"{_rounded_up(count / self.most):g} allows it"
            )


NODES = Limit(200_000, "the network has {count} nodes once functions and loops are written out")
NESTING = Limit(32, "the network's functions call each other {count} deep")
ROWS = Limit(4096, "the Jacobian has {count} rows, each of which costs a backward pass")
TIMES = Limit(100, "the shapes of the network would be inferred {count} times")
ELEMENTS = Limit(2**28, "a value within the network has {count} elements")


@contextmanager
def within(factor: float) -> Iterator[None]:
    """Meanwhile the limits are that many times as large."""
    token = _factor.set(factor)
    try:
        yield
    finally:
        _factor.reset(token)


def check_functions(model: ir.Model) -> None:
    """Count the nodes that the model has once its functions are written out, without doing it.

    Raises:
        SourceError: they are too many, or the functions call each other in a circle or too deep.
    """
    known: dict[ir.OperatorIdentifier, int] = {}

    def count(nodes: Iterable[ir.Node], depth: int) -> int:
        NESTING.check(depth)
        total = 0
        for node in nodes:
            called = node.op_identifier()
            if called in model.functions and called not in known:
                known[called] = count(model.functions[called].all_nodes(), depth + 1)
            total += known.get(called, 1)
        NODES.check(total)
        return total

    count(model.graph.all_nodes(), 0)


def check_values(graph: ir.Graph) -> None:
    """Hold each value's size, as far as it is known, to what fits into memory.

    Raises:
        SourceError: one is larger, for one image.
    """
    for value in [*graph.inputs, *(y for node in graph for y in node.outputs)]:
        ELEMENTS.check(math.prod(n for n in value.shape or () if isinstance(n, int)))


def _rounded_up(number: float) -> float:
    """To the next number of one digit: 83.9 → 90."""
    digit = 10 ** (len(str(int(number))) - 1)
    return (number // digit + 1) * digit
