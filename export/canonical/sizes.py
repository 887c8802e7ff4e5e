"""Sizes that a graph computes from its own shapes, found with the batch left open.

Exporters write `x.view(x.shape[0], 2, x.shape[1] // 2, …)` as arithmetic on the result of a Shape
node. With a dynamic batch no constant folding sees through it, although only the batch is open. So
the graph is folded with numbers for the open sizes, a batch of 2, of 103 and of 1: what comes out
the same for all does not depend on them. 2 and 103 are far apart, and leave another rest whatever
they are divided by, so that `N // 2`, `min(N, 8)` and `N % 3` are told; 1 is what is treated apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.export.autodiff import dependents
from onnxplain.export.canonical.emit import Emitted, Emitter, integers, replace
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.tensors import USUAL, array_of, dims, size_of
from onnxplain.initializers import initializer

_PAIRS = ((2, 103), (3, 104), (5, 108), (7, 114), (11, 120), (13, 126))
"""One for each open size, so that its multiples are those of no other."""

_LARGE = 1024  # elements; with more it is no list of sizes
_FEW = 64  # as are taken apart

Size = int | ir.SymbolicDim
Sizes = Mapping[str, tuple[int, int, int]]
"""The name of an open size → three numbers for it."""


def settle_sizes(
    model: ir.Model,
    inputs: Sequence[ir.Value],
    simplify: Callable[[ir.Model], None],
    name_all: bool = False,
    sizes: Sizes = MappingProxyType({}),
) -> None:
    """Make constants of the sizes that do not follow an open one of `inputs`; infer all shapes.

    Args:
        simplify: folds the constants of a model in place.
        name_all: also where no size is computed, but inference gave one a name of its own.
        sizes: the numbers to try, where others than these are to be.
    """
    graph = model.graph
    sizes = sizes or _open_sizes(inputs)
    computed = any(node.op_type == "Shape" for node in graph)
    if not sizes or not (computed or (name_all and _has_others(graph, sizes))):
        return
    names = {str(x.name) for x in inputs}
    first, second, alone = (
        _with_sizes(model, names, {name: each[i] for name, each in sizes.items()}, simplify)
        for i in range(3)
    )
    active = dependents(graph, inputs)
    for node in list(graph):
        for value in node.outputs:
            a, b = first.get(value.name), second.get(value.name)
            if a is not None and b is not None:
                _settle(graph, value, (a, b, alone.get(value.name)), value in active, sizes)
        if node.op_type == "Reshape":
            _settle_reshape(graph, node)
    common.RemoveUnusedNodesPass()(model)
    _note_usual(model, names, simplify)
    infer_shapes(model)


def _note_usual(model: ir.Model, inputs: set[str], simplify: Callable[[ir.Model], None]) -> None:
    """Add what the sizes are for an image of the usual size that have names of no formula."""
    known = model.graph.meta.get(USUAL, {})
    nameless = {
        str(n.value): (y.name, axis)
        for node in model.graph
        for y in node.outputs
        for axis, n in enumerate(y.shape or ())
        if isinstance(n, ir.SymbolicDim) and _OF_NO_FORMULA.fullmatch(str(n.value))
    }
    if not known or nameless.keys() <= known.keys():
        return
    found = _with_sizes(model, inputs, known, simplify)
    for name, (value, axis) in nameless.items():
        shape = found[value].shape if value in found else None
        if shape is not None and isinstance(shape[axis], int):
            known[name] = shape[axis]


def _has_others(graph: ir.Graph, sizes: Sizes) -> bool:
    found = (n for node in graph for y in node.outputs for n in y.shape or ())
    return any(not isinstance(n, int) and str(n.value) not in sizes for n in found)


def _open_sizes(inputs: Sequence[ir.Value]) -> Sizes:
    """Two numbers and 1 for each with a name; none where there are more than numbers are for."""
    open_ = [n for x in inputs for n in dims(x) if isinstance(n, ir.SymbolicDim)]
    names = dict.fromkeys(str(n.value) for n in open_ if n.value is not None)
    each = ((*pair, 1) for pair in _PAIRS)
    return dict(zip(names, each, strict=False)) if len(names) <= len(_PAIRS) else {}


def _with_sizes(
    model: ir.Model,
    inputs: set[str],
    numbers: Mapping[str, int],
    simplify: Callable[[ir.Model], None],
) -> dict[str | None, ir.Value]:
    """The model's values by name, when it is simplified with numbers for the open sizes."""
    copy = model.clone()
    for x in copy.graph.inputs:
        if x.name in inputs:
            x.shape = ir.Shape(
                [n if isinstance(n, int) else numbers.get(str(n.value), n) for n in dims(x)]
            )
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None  # found with open sizes
    for value in copy.graph.outputs:
        value.shape = None
    infer_shapes(copy)
    values = {value.name: value for node in copy.graph for value in node.outputs}
    simplify(copy)  # where the batch decides a branch, the sizes that decided it are gone
    values |= {value.name: value for node in copy.graph for value in node.outputs}
    return values | {value.name: value for value in copy.graph.initializers.values()}


def _settle(
    graph: ir.Graph,
    value: ir.Value,
    found: tuple[ir.Value, ir.Value, ir.Value | None],
    active: bool,
    sizes: Sizes,
) -> None:
    """Give a value its constant, or the part of its shape that is the same for all numbers.

    Args:
        found: it with each number for the open sizes; with the last it may be gone.
    """
    a, b, alone = found
    arrays = [array_of(v) for v in found]
    if arrays[0] is not None and arrays[1] is not None and not active:
        small = arrays[0].size <= _LARGE and not value.is_graph_output()
        same = [np.array_equal(arrays[0], other) for other in arrays[1:] if other is not None]
        if small and all(same):
            constant = initializer(graph, f"{value.name}.settled", arrays[0])
            ir.convenience.replace_all_uses_with(value, constant)
            return
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return
    third: Sequence[Size | None] = [None] * len(a.shape)
    if alone is not None and alone.shape is not None and len(alone.shape) == len(a.shape):
        third = list(alone.shape)
    each = zip(a.shape, b.shape, third, strict=True)
    value.shape = ir.Shape([_size(m, n, o, sizes) for m, n, o in each])


def _size(m: Size, n: Size, o: Size | None, sizes: Sizes) -> Size:
    """What a size is, which is m, n and o for the numbers of the open ones."""
    if not (isinstance(m, int) and isinstance(n, int)):
        return ir.SymbolicDim(None)
    last = o if isinstance(o, int) else None
    if m == n:
        return m if last in (None, m) else ir.SymbolicDim(None)
    for name, (first, second, _) in sizes.items():  # the last may be one that is treated apart
        factor = (n - m) // (second - first)
        if (m, n) == (first * factor, second * factor):
            return ir.SymbolicDim(name if factor == 1 else f"{factor}*{name}")
    formulas = (_formula((m, n, last), name, each) for name, each in sizes.items())
    unnamed = None if last is None else f"size_{m}_{n}_{last}"
    return ir.SymbolicDim(next(filter(None, formulas), unnamed))


_OF_NO_FORMULA = re.compile(r"size_\d+_\d+_\d+")
"""The name of a size that is no formula of one open size, as how many places a map has: what it is
for the three numbers."""


def _largest_factor(n: int) -> int:
    """The largest prime factor."""
    return next((max(p, _largest_factor(n // p)) for p in range(2, n) if n % p == 0), n)


_STRIDES = sorted(range(2, 129), key=lambda s: (_largest_factor(s), s))
"""Of windows over windows, the likeliest first: powers of 2, then what is left of 2 and 3, …"""


def _formula(found: tuple[int, int, int | None], name: str, numbers: Sequence[int]) -> str | None:
    """The open size `name`, and something, by a stride: what windows that slide over windows leave
    of it. So sizes have one name where they are the same for all numbers."""
    if found[2] is None:
        return None
    pairs = [(m, n) for m, n in zip(found, numbers, strict=True) if m is not None]
    if all(pairs[0][0] - pairs[0][1] == m - n for m, n in pairs):
        return f"{name} + {pairs[0][0] - pairs[0][1]}"
    for s in _STRIDES:
        more = max(s * m - n for m, n in pairs)
        if all((n + more) // s == m for m, n in pairs):
            return f"({name} + {more})//{s}"
    return None


def _settle_reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Give a Reshape with one open size a constant shape, with -1 for it."""
    y, given = node.outputs[0], node.inputs[1]
    if y.shape is None or given is None or ir.convenience.get_const_tensor(given) is not None:
        return
    sizes = [size if isinstance(size, int) else -1 for size in y.shape]
    if sizes.count(-1) == 1 and 0 not in sizes:
        constant = initializer(graph, f"{y.name}.shape", np.array(sizes, np.int64))
        node.replace_input_with(1, constant)


def take_apart(graph: ir.Graph) -> bool:
    """Short vectors of whole numbers, as sizes are, by Slices: a Split is never folded, as it has
    several results. Was there any?
    """
    found = [node for node in graph if _splits_sizes(node)]
    for node in found:
        replace(node, _slices)
    return bool(found)


def _splits_sizes(node: ir.Node) -> bool:
    x = node.inputs[0] if node.op_type == "Split" else None
    if x is None or x.dtype != ir.DataType.INT64 or x.shape is None or len(x.shape) != 1:
        return False
    short = isinstance(x.shape[0], int) and x.shape[0] <= _FEW
    return short and (len(node.inputs) < 2 or array_of(node.inputs[1]) is not None)


def _slices(emit: Emitter, node: ir.Node) -> Emitted:
    x, parts = node.inputs[0], len(node.outputs)
    assert x is not None
    sizes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None:  # equal, but for the last
        sizes = np.full(parts, -(-size_of(x, 0) // parts))
    ends = np.minimum(np.cumsum(sizes), size_of(x, 0))
    starts = [0, *ends[:-1]]
    pairs = zip(starts, ends, strict=True)
    return [emit("Slice", x, integers(start), integers(end)) for start, end in pairs]
