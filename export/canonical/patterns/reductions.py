"""Reductions in one spelling: those whose axes are put back afterwards keep them, as PyTorch's
exporter writes `x.var(1, keepdim=True)` and so do many networks; those of a stack are of its parts.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.patterns.spelling import made_by, replace, single_user
from onnxplain.export.operators import Axes, row_of
from onnxplain.export.tensors import array_of, number_of


def keep_reduced_axes(graph: ir.Graph) -> None:
    """`Reduce…(keepdims=0)`, elementwise operators, Unsqueeze or Reshape: the last is left out."""
    for node in list(graph):
        y, below = node.outputs[0], made_by(node.outputs[0], "Unsqueeze", "Reshape")
        if below is None or y.is_graph_output() or (path := _to_reduction(below)) is None:
            continue
        x, axes = path[-1].inputs[0], array_of(path[-1].inputs[1])
        if x is None or x.shape is None or y.shape is None or axes is None or not axes.size:
            continue
        n = len(x.shape)
        reduced = {int(axis) % n for axis in axes}
        kept = ir.Shape([1 if i in reduced else size for i, size in enumerate(x.shape)])
        if not _same(y.shape, kept):
            continue
        path[-1].attributes.add(ir.AttrInt64("keepdims", 1))
        for above in path:
            above.outputs[0].shape = kept
        ir.convenience.replace_all_uses_with(y, path[0].outputs[0])
        graph.remove(node, safe=True)
        path[0].outputs[0].name = y.name  # a layer may be known by this name


def unstack_extrema(graph: ir.Graph) -> None:
    """`ReduceMax` along the axis of a stack, torch.stack([a, b]).amax(0), is `Max` of its parts;
    so of minima."""
    for node in list(graph):
        stack = made_by(node.inputs[0], "Concat") if node.op_type in _EXTREMA else None
        axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if stack is None or axes is None or axes.size != 1 or stack.outputs[0].shape is None:
            continue
        n = len(stack.outputs[0].shape)
        axis = stack.attributes.get_int("axis", 0) % n
        parts = [_part(x, axis, n) for x in stack.inputs]
        dropped = node.attributes.get_int("keepdims", 1) == 0 and int(axes.item()) % n == axis
        if dropped and all(part is not None for part in parts):
            replace(node.outputs[0], _EXTREMA[node.op_type], [p for p in parts if p is not None])
            made = (x.producer() for x in stack.inputs if x is not None)
            for spent in dict.fromkeys(x for x in (node, stack, *made) if x is not None):
                y = spent.outputs[0]
                if not y.uses() and not y.is_graph_output():
                    graph.remove(spent, safe=True)


_EXTREMA = {"ReduceMax": "Max", "ReduceMin": "Min"}


def _part(x: ir.Value | None, axis: int, n: int) -> ir.Value | None:
    """What became a part of a stack of rank n by an axis of size 1."""
    node = made_by(x, "Unsqueeze")
    added = None if node is None else array_of(node.inputs[1])
    if node is None or added is None or [int(a) % n for a in added] != [axis]:
        return None
    return node.inputs[0]


def _same(a: ir.Shape, b: ir.Shape) -> bool:
    """Whether two shapes of as many elements are the same: one size may be open in both."""
    if len(a) != len(b):
        return False
    differing = [pair for pair in zip(a, b, strict=True) if pair[0] != pair[1]]
    return len(differing) <= 1 and not any(isinstance(n, int) for pair in differing for n in pair)


def _to_reduction(node: ir.Node) -> list[ir.Node] | None:
    """The nodes above this, up to a reduction that drops its axes; each serves only the next."""
    path: list[ir.Node] = []
    x = node.inputs[0]
    while x is not None and single_user(x) is not None and (above := x.producer()) is not None:
        path.append(above)
        if above.op_type.startswith("Reduce") and above.domain == "" and len(above.inputs) > 1:
            return path if above.attributes.get_int("keepdims", 1) == 0 else None
        open_inputs = [v for v in above.inputs if v is not None and not _is_number(v)]
        elementwise = row_of(operator_name(above)).axes is Axes.ELEMENTWISE
        if not elementwise or len(open_inputs) != 1:
            return None
        x = open_inputs[0]
    return None


def _is_number(value: ir.Value) -> bool:
    """Whether it is a constant of one element, which broadcasts to any rank from 1 on."""
    return number_of(value) is not None and value.shape is not None and len(value.shape) <= 1
