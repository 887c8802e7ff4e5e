"""Derivatives of a forward pass, laid behind it: gradients, Jacobians, Hessian–vector products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.derivatives import (
    DIRECTION,
    GRADIENT,
    HESSIAN_PRODUCT,
    INPUT,
    JACOBIAN,
    SEED,
)
from onnxplain.errors import NoRuleError, SourceError
from onnxplain.export.autodiff import between, dependents, swept
from onnxplain.export.budget import ELEMENTS, ROWS
from onnxplain.export.canonical.samples import mixing
from onnxplain.export.operators import VJPS
from onnxplain.export.tensors import (
    constant,
    dims,
    integers,
    reshape,
    static,
    zeros_like,
)
from onnxplain.export.vjps.regions import CONSTANTS
from onnxplain.export.vmap import vmap

Values = Mapping[str, ir.Value]
"""Values of the graph by their names in the source."""


class Differentiation:
    """The derivatives of values `of` with respect to values `wrt`, as they are emitted.

    Attributes:
        wrt: without those that no cotangent arrives at, where such may be left out.
        inputs, outputs: those added to the graph's own, by name, each in words.
        results: the values that shall become the outputs, by name.
    """

    def __init__(
        self, op: OpBuilder, of: Values, wrt: Values, seed: str, prefix: str, leave_out: bool
    ) -> None:
        self.op, self.of, self.wrt, self.prefix = op, of, dict(wrt), prefix
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.results: dict[str, ir.Value] = {}
        self._seed, self._leave_out = seed, leave_out

    def gradients(self) -> list[ir.Value]:
        """The vector–Jacobian products, of the shapes of `wrt`.

        Raises:
            NoRuleError, RuleError: as `pull_back`.
            SourceError: no cotangent arrives at one of `wrt` that may not be left out.
        """
        seeds: dict[ir.Value, ir.Value] = {}
        for name, y in self.of.items():  # of which several may have become one
            g = self._cotangent(name, y)
            seeds[y] = self.op.Add(seeds[y], g) if y in seeds else g
        found = self._swept(seeds, self.wrt)
        self.wrt = {name: self.wrt[name] for name in found}
        of, what = " + ".join(self.of), "their cotangents" if self._seed == INPUT else "ones"
        for name, gx in found.items():
            words = f"of {of} by {name}, the product with {what}"
            x = self.wrt[name]
            self._put(GRADIENT, gx, x.dtype, dims(x), words, wrt=name)
        return [*found.values()]

    def _swept(self, seeds: Mapping[ir.Value, ir.Value], wrt: Values) -> dict[str, ir.Value]:
        """The cotangents of `wrt` by name."""
        self._refuse_constants(wrt)
        results = zip(wrt, swept(self.op, seeds, [*wrt.values()], VJPS), strict=True)
        found = {name: gx for name, gx in results if gx is not None}
        missing = [name for name in wrt if name not in found]
        if missing and not self._leave_out:
            raise nothing_flows(missing, self.of)
        return found

    def _refuse_constants(self, wrt: Values) -> None:
        """
        Raises:
            NoRuleError: `of` depends on `wrt` by what rules take for a constant.
        """
        graph = self.op.builder.graph
        if not any(node.op_type in CONSTANTS for node in graph):
            return
        for name, x in wrt.items():
            active = dependents(graph, [x])
            for node in between(graph, [x], self.of.values()):
                for index, what in CONSTANTS.get(node.op_type, {}).items():
                    if node.inputs[index] in active:
                        raise NoRuleError(
                            f"no rule for {node.op_type} {node.name!r} with respect to {what}, "
                            f"which follow from {name!r}; name other values with wrt=, or cut the "
                            "graph there"
                        )

    def _cotangent(self, name: str, y: ir.Value) -> ir.Value:
        if self._seed == INPUT:
            return self._take(SEED, y, f"the cotangent of {name}", of=name)
        return ones_like(self.op, y)

    def second(self, gradients: Sequence[ir.Value]) -> None:
        """The products of the Hessian with vectors: a sweep over the sweep of the gradients.

        Where nothing flows, as in networks that are linear piece by piece, they are 0.
        """
        seeds: dict[ir.Value, ir.Value] = {}
        for (name, x), gx in zip(self.wrt.items(), gradients, strict=True):
            v = self._take(DIRECTION, x, f"the direction in {name}", wrt=name)
            seeds[gx] = self.op.Add(seeds[gx], v) if gx in seeds else v
        found = swept(self.op, seeds, [*self.wrt.values()], VJPS)
        for (name, x), product in zip(self.wrt.items(), found, strict=True):
            words = f"the Hessian by {name}, the product with the directions"
            value = zeros_like(self.op, x) if product is None else product
            self._put(HESSIAN_PRODUCT, value, x.dtype, dims(x), words, wrt=name)

    def jacobians(self) -> None:
        """Every derivative of each of `of`, from one sweep that is repeated for its elements.

        Raises:
            NoRuleError, RuleError: as `pull_back`.
            SourceError: too many elements, open sizes other than a batch whose samples are apart,
                or an operator that cannot be repeated.
        """
        graph = self.op.builder.graph
        forward = list(graph)
        for name, y in self.of.items():
            wrt = {n: x for n, x in self.wrt.items() if x is y or between(forward, [x], [y])}
            batched = self._is_batched(forward, name, y, wrt)
            rows = math.prod(static(y, 1 if batched else 0))
            ROWS.check(rows)
            for x in wrt.values():
                ELEMENTS.check(rows * math.prod(n for n in dims(x) if isinstance(n, int)))
            for n, value in self._repeated(name, y, wrt, rows, batched).items():
                shape = [*dims(y), *dims(wrt[n])[1 if batched else 0 :]]
                shaped = _shaped(self.op, value, shape, len(dims(y)), batched)
                words = f"of {name} by {n}"
                self._put(JACOBIAN, shaped, y.dtype, shape, words, of=name, wrt=n)

    def _repeated(
        self, name: str, y: ir.Value, wrt: Values, rows: int, batched: bool
    ) -> dict[str, ir.Value]:
        """The cotangents of `wrt` for each row: [rows, *x], or [N, rows, …] of a batch."""
        op, graph = self.op, self.op.builder.graph
        K = integers(op, np.array([rows]))
        each = reshape(op, op.EyeLike(_zeros(op, y, rows)), [rows, *_ones_but(y, batched)])
        if batched:
            each = op.Expand(each, op.Concat([1], op.Shape(y), axis=0))
        each.shape = ir.Shape([rows, *dims(y)])
        first = op.Squeeze(op.Slice(each, [0], [1], [0]), [0])
        before = len(graph)
        found = self._swept({y: first}, wrt)
        backward = list(islice(graph, before, None))
        try:
            mapped = vmap(op, backward, {first: each}, K)
        except SourceError as error:
            raise SourceError(f"the Jacobian of {name!r}: {error}") from error
        values = {n: mapped[gx] for n, gx in found.items()}
        if not batched:
            return values
        return {
            n: op.Transpose(value, perm=[1, 0, *range(2, 1 + len(dims(wrt[n])))])
            for n, value in values.items()
        }

    def _is_batched(self, forward: Sequence[ir.Node], name: str, y: ir.Value, wrt: Values) -> bool:
        """Whether the first axis of y and of all of `wrt` is an open batch.

        Raises:
            SourceError: y has another open size, or samples may mix.
        """
        open_ = [i for i, n in enumerate(dims(y)) if not isinstance(n, int)]
        if not open_:
            return False
        batch = dims(y)[0]
        others = [n for n, x in wrt.items() if dims(x)[:1] != [batch]]
        if open_ != [0] or isinstance(batch, int) or others:
            why = f", and {others[0]!r} is no batch" if open_ == [0] else ""
            sizes = " and ".join(repr(str(dims(y)[i])) for i in open_)
            raise SourceError(
                f"the Jacobian of {name!r} {y.shape} needs the size {sizes}{why}; fix it with "
                "sizes="
            )
        batches = [x for x in self.op.builder.graph.inputs if list(x.shape or ())[:1] == [batch]]
        roots = {*batches, *wrt.values()}
        if (node := mixing(between(forward, roots, [y]), roots, y, batch)) is not None:
            raise SourceError(
                f"the Jacobian of {name!r} {y.shape}: {node.op_type} {node.name!r} may mix the "
                f"samples of the batch; fix the size {str(batch)!r} with sizes=, and the Jacobian "
                "has both batches"
            )
        return True

    def _take(self, form: str, like: ir.Value, words: str, **names: str) -> ir.Value:
        name = self._name(form, **names)
        self.inputs[name] = words
        return self.op.builder.input(name, like.dtype, dims(like))

    def _put(
        self,
        form: str,
        value: ir.Value,
        dtype: ir.DataType | None,
        shape: Sequence[int | ir.SymbolicDim],
        words: str,
        **names: str,
    ) -> None:
        """What shall be an output, through an Identity, as it may be lowered till then."""
        name = self._name(form, **names)
        self.outputs[name] = words
        y = self.op.Identity(value)
        y.dtype, y.shape = dtype, ir.Shape(shape)
        self.results[name] = y

    def _name(self, form: str, **names: str) -> str:
        name = self.prefix + form.format(**names)
        graph = self.op.builder.graph
        if name in {v.name for v in (*graph.inputs, *graph.outputs)} or name in self.results:
            raise SourceError(
                f"the network has an input or output {name!r} already; give the new ones another "
                "name with prefix="
            )
        return name


def ones_like(op: OpBuilder, value: ir.Value) -> ir.Value:
    ones = constant(op, np.ones([1] * len(dims(value))), value)
    if all(n == 1 for n in dims(value)):
        return ones
    ones = op.Expand(ones, op.Shape(value))
    ones.shape = value.shape  # inference does not see through Shape
    return ones


def _shaped(
    op: OpBuilder,
    value: ir.Value,
    shape: Sequence[int | ir.SymbolicDim],
    split: int,
    batched: bool,
) -> ir.Value:
    """[rows, *x], or [N, rows, …], with the rows spread over the axes of y, the first `split`."""
    if sum(not isinstance(n, int) for n in shape) <= 1:
        return reshape(op, value, shape)
    parts: list[Any] = [op.Shape(value, end=1)] if batched else []
    if rows := [n for n in shape[batched:split] if isinstance(n, int)]:
        parts.append(rows)
    return op.Reshape(value, op.Concat(*parts, op.Shape(value, start=1 + batched), axis=0))


def _zeros(op: OpBuilder, like: ir.Value, rows: int) -> ir.Value:
    """A square of them, which costs a file nothing."""
    return op.Expand(constant(op, np.zeros([1, 1]), like), [rows, rows])


def _ones_but(y: ir.Value, batched: bool) -> list[int]:
    """The shape of y, with 1 for its batch."""
    return [1, *static(y, 1)] if batched else static(y)


def nothing_flows(names: Iterable[str], of: Iterable[str]) -> SourceError:
    ends, starts = (" and ".join(map(repr, values)) for values in (of, names))
    return SourceError(
        f"only indices, comparisons or steps lead from {starts} to {ends}, whose derivative is 0 "
        "wherever there is one; leave it out of wrt="
    )
