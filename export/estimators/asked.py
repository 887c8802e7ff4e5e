"""An explain graph as a function of the image, for estimators to ask at many images.

The samples are asked in one `Loop` of ONNX's, whose body is the graph once, with the weights where
they are: a file does not grow with their number. What the explanation is of is fixed by the image
itself: the target's class, and what an objective chooses or holds constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import TARGET, Preprocessing
from onnxplain.export.autodiff import Node
from onnxplain.export.loops import chunks, looped
from onnxplain.export.replay import replay
from onnxplain.export.tensors import constant, dims, integers, is_known, rank, size_at


@dataclass(frozen=True)
class Draw:
    """The samples of one turn of the loop: c of them, or one without an axis of its own.

    Attributes:
        op: emits into the loop's body.
        turn: which one it is, an int64 scalar of the graph.
        size: c.
    """

    op: OpBuilder
    turn: ir.Value
    size: int

    def of(self, rows: ir.Value, images: int) -> ir.Value:
        """These samples' rows of a table [S / c, c, …], with axes for `images` axes behind.

        Returns:
            [c, …, 1, …, 1], or […, 1, …, 1] where c is 1.
        """
        chosen = self.op.Gather(rows, self.turn, axis=0)
        if self.size == 1:
            chosen = self.op.Squeeze(chosen, [0])
        here = rank(rows) - (1 if self.size > 1 else 2)
        return self.op.Unsqueeze(chosen, list(range(here, here + images))) if images else chosen


@dataclass(frozen=True)
class Asked:
    """An explain graph of one image each.

    Attributes:
        op: emits into the graph.
        image: [N, …].
        pullback: of it, [N, …], or [N, K, …] for several targets.
        scalar: what is explained, [N] or [N, K].
        fixed: values that stay those of the image itself.
        preprocessing: of photographs.
        inputs: of the estimator, by name.
        chunk: the most samples that run at once.
        nodes: the graph's, as they were before any estimator.
    """

    op: OpBuilder
    image: ir.Value
    pullback: ir.Value
    scalar: ir.Value
    fixed: Sequence[ir.Value]
    preprocessing: Preprocessing
    inputs: Mapping[str, ir.Value]
    chunk: int
    nodes: Sequence[Node] = field(default_factory=tuple)

    def table(self, rows: np.ndarray) -> ir.Value:
        """An array [S, …] as a constant of the graph, for `Draw.of`."""
        size = chunks(len(rows), self.chunk)
        shaped = rows.reshape(len(rows) // size, size, *rows.shape[1:])
        if shaped.dtype.kind == "i":
            return integers(self.op, shaped)
        return constant(self.op, shaped, self.image)

    def scalar_at(self, x: ir.Value) -> ir.Value:
        """What is explained, of another image of the same shape."""
        found = replay(self.op, self.nodes, {self.image: x, **{v: v for v in self.fixed}})
        return found.get(self.scalar, self.scalar)

    def sums(
        self,
        samples: int,
        sample: Callable[[Draw], ir.Value],
        terms: Callable[[Draw, ir.Value], Sequence[ir.Value]],
        count: int = 1,
    ) -> list[ir.Value]:
        """Ask at `samples` images, and add up.

        Args:
            sample: the images of a draw, [c, N, …], or [N, …] of one.
            terms: of a draw and the explanations, [c, N, …] or [N, …]: what is added up.
            count: how many terms there are.

        Returns:
            The sums, each of the pullback's shape.
        """
        size = chunks(samples, self.chunk)
        op = self.op
        behind: Any = [-1, *dims(self.image)[1:]]
        if not all(map(is_known, behind)):
            behind = op.Concat([-1], op.Shape(self.image, start=1), axis=0)
        fixed = {value: value for value in self.fixed}
        if size > 1:
            fixed = {value: op.Concat(*[value] * size, axis=0) for value in fixed}
        shape = self._shape()

        def turn(
            inner: OpBuilder, number: ir.Value, sums: Sequence[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            draw = Draw(inner, number, size)
            x = sample(draw)
            if size > 1:
                x = inner.Reshape(x, behind)
            x.type, x.shape = self.image.type, self._shape_of(self.image, size)
            g = replay(inner, self.nodes, {self.image: x, **fixed})[self.pullback]
            if size > 1:
                g = inner.Reshape(g, inner.Concat([size], shape, axis=0))
            added = terms(draw, g)
            if size > 1:
                added = [inner.ReduceSum(term, [0], keepdims=0) for term in added]
            return [inner.Add(total, term) for total, term in zip(sums, added, strict=True)], []

        zero = constant(op, np.zeros(()), self.image)
        start = op.Expand(zero, shape)
        start.shape, start.type = self.pullback.shape, self.image.type
        return looped(op, samples // size, [start] * count, turn, "sample")[0]

    def _shape(self) -> ir.Value:
        """The pullback's shape, without asking for it."""
        op, sizes = self.op, dims(self.pullback)
        open_sizes = [op.Shape(self.image, start=0, end=1)]
        if rank(self.pullback) > rank(self.image):
            (target,) = (x for x in op.builder.graph.inputs if x.name == TARGET)
            open_sizes.append(op.Shape(target, start=1, end=2))
        behind = [
            [n] if is_known(n) else size_at(op, self.image, axis)
            for axis, n in enumerate(sizes[len(open_sizes) :], len(open_sizes) - len(sizes))
        ]
        return op.Concat(*open_sizes, *behind, axis=0)

    @staticmethod
    def _shape_of(value: ir.Value, size: int) -> ir.Shape:
        assert value.shape is not None
        first, *others = value.shape
        return ir.Shape([first if size == 1 else None, *others])
