"""What a graph computes from sizes and constants, with a number in place of its open sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxplain.export.autodiff import SHAPES
from onnxplain.export.canonical.emit import integers
from onnxplain.export.tensors import USUAL, attribute, dims


def concrete(value: ir.Value, size: int) -> list[int] | None:
    """The dimensions of a value, with `size` for every open size and symbol; for those of an image
    of any size the usual ones.

    None where even the rank is unknown, or a size would be no whole number (batch / 2).
    """
    if value.shape is None:
        return None
    sizes, usual = [], {} if value.graph is None else value.graph.meta.get(USUAL, {})
    for n in dims(value):
        if isinstance(n, ir.SymbolicDim):
            named = {} if n.value is None else dict.fromkeys(n.free_symbols(), size)
            known = {name: usual[name] for name in named.keys() & usual.keys() - {"batch"}}
            n = n.evaluate(named | known) if n.value is not None else size
        if not isinstance(n, int):
            return None
        sizes.append(n)
    return sizes


def evaluated(
    value: ir.Value,
    opset: int,
    size: int,
    given: Mapping[ir.Value, np.ndarray] | None = None,
    largest: int = 100_000,
) -> np.ndarray | None:
    """A value that is computed from sizes and constants alone (and values `given`), else None.

    Args:
        value: of the main graph or of a body in it.
        opset: the opset of its model.
        size: the number in place of an open size (`concrete`).
        given: values known for this call, such as the number of a round.
        largest: the most elements that a tensor on the way may have.
    """
    known = dict(given or {})
    waiting = [value]
    while waiting:
        if (x := waiting[-1]) in known:
            waiting.pop()
            continue
        node, tensor = x.producer(), ir.convenience.get_const_tensor(x)
        if tensor is not None:
            if tensor.size > largest:
                return None
            known[x] = tensor.numpy()
        elif node is None or node.domain or any(a.type == _GRAPH for a in node.attributes.values()):
            return None
        elif any(math.prod(sizes) > largest for y in node.outputs if (sizes := concrete(y, size))):
            return None  # before it is computed
        elif missing := [y for y in _operands(node) if y not in known]:
            waiting += missing
        else:
            results = _measured(node, size) or _computed(node, known, opset, largest)
            if results is None or any(array.size > largest for array in results):
                return None
            known.update(zip(node.outputs, results, strict=True))
    return known[value]


def telling_sizes(value: ir.Value) -> list[int]:
    """Numbers to put in place of open sizes, to see if `value` depends on them; none if on none.

    What a network decides by a size changes where the size, or a multiple of it, meets one of the
    network's constants (`N == 4`, `36 * N > 2000`), or with a short period (`N % 7 == 3`). So: all
    small sizes, some large ones, and the divisors of every constant on the way, with their
    neighbours.
    """
    constants: set[int] = set()
    is_open, seen, waiting = False, set(), [value]
    while waiting:
        x = waiting.pop()
        node, tensor = x.producer(), ir.convenience.get_const_tensor(x)
        if x in seen:
            continue
        seen.add(x)
        if tensor is not None:
            if tensor.size <= _FEW:
                constants.update(int(abs(n)) for n in tensor.numpy().ravel() if abs(n) <= _LARGEST)
        elif node is None:
            continue
        elif node.op_type in SHAPES:
            shape = node.inputs[0].shape if node.inputs[0] is not None else None
            is_open |= shape is None or not all(isinstance(n, int) for n in shape)
        else:
            waiting += _operands(node)
    if not is_open:
        return []
    divisors = {d for n in constants for d in range(1, math.isqrt(n) + 1) if n % d == 0}
    divisors |= {n // d for n in constants for d in divisors if n % d == 0}
    near = {d + step for d in divisors for step in (-1, 0, 1)}
    return sorted({*range(1, 33), 960, 1009, 2**16 + 1, *(n for n in near if n > 0)})


_FEW, _LARGEST = 8, 10**6  # elements, and magnitude, of a constant that may decide something
_GRAPH = ir.AttributeType.GRAPH


def _operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that must be known; a Shape or Size needs none."""
    return [] if node.op_type in SHAPES else [x for x in node.inputs if x is not None]


def _measured(node: ir.Node, size: int) -> list[np.ndarray] | None:
    """What a Shape or Size gives."""
    if node.op_type not in SHAPES or (x := node.inputs[0]) is None:
        return None
    if (sizes := concrete(x, size)) is None:
        return None
    if node.op_type == "Size":
        return [np.array(math.prod(sizes))]
    start, end = attribute(node, "start", 0), attribute(node, "end", len(sizes))
    return [integers(*sizes[start:end])]


def _made(node: ir.Node, known: Mapping[ir.Value, np.ndarray]) -> float:
    """How many elements a node gives whose operands' values say so; 0 of any other."""
    operands = [known[x].astype(float) for x in _operands(node) if known[x].dtype.kind in "iuf"]
    if node.op_type == "Range" and len(operands) == 3:
        start, limit, delta = (float(x.reshape(-1)[0]) for x in operands)
        return abs(limit - start) / abs(delta or 1)
    if node.op_type in ("Expand", "Tile", "ConstantOfShape", "OneHot") and operands:
        times = float(np.prod(np.abs(operands[min(1, len(operands) - 1)])))
        return times * (1 if node.op_type == "ConstantOfShape" else operands[0].size)
    return 0


def _computed(
    node: ir.Node, known: Mapping[ir.Value, np.ndarray], opset: int, largest: int
) -> list[np.ndarray] | None:
    """What any other node gives; None where it cannot be run, as with a size that does not fit."""
    if node.op_type in SHAPES or _made(node, known) > largest:
        return None
    evaluator = ReferenceEvaluator(ir.to_proto(node), opsets={"": opset})
    try:
        results = evaluator.run(None, {str(x.name): known[x] for x in _operands(node)})
    except Exception:
        return None
    return [np.asarray(result) for result in results]
