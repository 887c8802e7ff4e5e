"""Activations, recognised by what they compute: a chain of elementwise nodes of one value.

There are many ways to write GELU, and its operands commute. So a chain is not compared node by
node: it is run on numbers between −10⁸ and 10⁸ and compared with what the activations give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.patterns.spelling import (
    initializer,
    replace,
    self_contained,
    uniform,
)
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import rank

Array: TypeAlias = np.ndarray
LONGEST = 16  # nodes; GELU by tanh with x·x·x has 10

# ----- running a chain -----

erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def hard_swish(x: Array) -> Array:
    return x * hard_sigmoid(x, 1 / 6, 0.5)


def gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def clip(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _extremum(choose: np.ufunc) -> Callable[..., Array]:
    return lambda *xs: choose.reduce(np.broadcast_arrays(*xs))


_WIDE = {int(t): np.float64 for t in ir.DataType if t.is_floating_point()}
ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": _extremum(np.maximum),
    "Min": _extremum(np.minimum),
    "Where": np.where,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "Cast": lambda x, to, **_: np.asarray(x).astype(_WIDE.get(to) or ir.DataType(to).numpy()),
    "Sign": np.sign,
    "Neg": np.negative,
    "Abs": np.abs,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Erf": erf,
    "Tanh": np.tanh,
    "Sigmoid": sigmoid,
    "Softplus": softplus,
    "Relu": lambda x: np.maximum(x, 0),
    "Clip": clip,
    "LeakyRelu": lambda x, alpha=0.01: np.where(x > 0, x, alpha * x),
    "PRelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "ThresholdedRelu": lambda x, alpha=1.0: np.where(x > alpha, x, 0),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: hard_sigmoid(x, alpha, beta),
}
"""Operator → its function of arrays, with its attributes as keywords."""

ALONE = ("LeakyRelu", "Max", "PRelu", "ThresholdedRelu")
"""Those that are a ReLU themselves, of some parameter, or beside zeros."""


Place: TypeAlias = tuple[ir.Node, int | str]
"""Where a chain has a constant: a node's input by its index, or a float attribute by its name."""


def constants(chain: Sequence[ir.Node]) -> dict[Place, float]:
    """The numbers that are written into a chain, by their places."""
    found: dict[Place, float] = {}
    for node in chain:
        numbers = ((i, uniform(value)) for i, value in enumerate(node.inputs))
        found.update({(node, i): number for i, number in numbers if number is not None})
        floats = (a for a in node.attributes.values() if a.type == ir.AttributeType.FLOAT)
        found.update({(node, a.name): a.as_float() for a in floats})
    return found


def run(
    chain: Sequence[ir.Node],
    x: ir.Value,
    numbers: Array,
    other: Mapping[Place, float] | None = None,
) -> list[Array]:
    """What each node of a chain gives when `x` is `numbers`, and some constants are others."""
    other = other or {}
    values: dict[ir.Value | None, Array | None] = {x: numbers, None: None}
    for node in chain:
        inputs = [
            values[v] if v in values else np.array(other.get((node, i), uniform(v)))
            for i, v in enumerate(node.inputs)
        ]
        attributes = {
            name: other.get((node, name), attribute.value)
            for name, attribute in node.attributes.items()
        }
        values[node.outputs[0]] = ELEMENTWISE[node.op_type](*inputs, **attributes)
    results = [values[node.outputs[0]] for node in chain]
    return [np.broadcast_to(y, numbers.shape) for y in results if y is not None]


# ----- comparing it -----

_NEAR = np.linspace(-9, 9, 73)
_FAR = np.array([s * x for x in (15, 40, 80, 1e3, 1e5, 1e8) for s in (-1, 1)])
NUMBERS = np.concatenate([_NEAR, _FAR])
_KNOT = 100.0
_ONE, _MINUS_ONE = (int(np.flatnonzero(x == NUMBERS)[0]) for x in (1.0, -1.0))

Match: TypeAlias = tuple[str, dict[str, Any]]
Function: TypeAlias = Callable[[Array], Array]

RELU6 = (0.0, 6.0)
"""The bounds of the only Clip among the nodes."""

_KNOWN: list[tuple[Match, Function]] = [
    (("Relu", {}), lambda x: np.maximum(x, 0)),
    (("Clip", {}), lambda x: np.clip(x, *RELU6)),
    (("Gelu", {"approximate": "none"}), lambda x: gelu(x, "none")),
    (("Gelu", {"approximate": "tanh"}), lambda x: gelu(x, "tanh")),
    (("onnxplain::Swish", {"alpha": 1.0}), lambda x: x * sigmoid(x)),
    (("HardSwish", {}), hard_swish),
    (("Mish", {}), lambda x: x * np.tanh(softplus(x))),
    (("Sigmoid", {}), sigmoid),
    (("Softplus", {}), softplus),
    (("Elu", {"alpha": 1.0}), lambda x: np.where(x > 0, x, np.expm1(x))),
]
with np.errstate(all="ignore"):
    EXACT = [(found, function, function(NUMBERS)) for found, function in _KNOWN]


def _candidates(y: Array, tolerance: float) -> Iterator[tuple[Match, Function]]:
    """Activations that give `y` at `NUMBERS`: operator and attributes, and the function."""
    for found, function, expected in EXACT:
        if _close(y, expected, tolerance):
            yield found, function
    for found, function in _with_parameter(float(y[_ONE]), float(y[_MINUS_ONE])):
        if _close(y, function(NUMBERS), tolerance):
            yield found, function


def _with_parameter(at_one: float, at_minus_one: float) -> Iterator[tuple[Match, Function]]:
    """Activations whose parameter follows from one or two of their values."""
    if 0.5 < at_one < 1:
        beta = math.log(at_one / (1 - at_one))
        yield ("onnxplain::Swish", {"alpha": beta}), lambda x: x * sigmoid(beta * x)
    alpha = (at_one - at_minus_one) / 2
    if 0 < alpha < 0.5:
        yield ("HardSigmoid", {"alpha": alpha, "beta": 0.5}), lambda x: hard_sigmoid(x, alpha, 0.5)
    slope = -at_minus_one
    if 0 < slope < 1:
        yield ("LeakyRelu", {"alpha": slope}), lambda x: np.where(x > 0, x, slope * x)


def _between(chain: Sequence[ir.Node]) -> Array:
    """More numbers than `NUMBERS`: those of every size, and some beside each constant of the chain,
    where a threshold would be."""
    knots = {c for c in constants(chain).values() if 0 < abs(c) <= _KNOT}
    beside = [c * (1 + e) for c in knots for e in (-1e-3, 1e-3)]
    numbers = np.concatenate([np.geomspace(1e-5, _KNOT, 141), beside])
    return np.concatenate([numbers, -numbers])


def _close(y: Array, expected: Array, tolerance: float) -> bool:
    return _error(y, expected, tolerance, near_zero=math.inf) <= 1


def _error(y: Array, expected: Array, tolerance: float, near_zero: Array | float) -> float:
    """The largest difference as a part of the allowed one, wherever `y` does not overflow; near 0
    it must not.

    Args:
        near_zero: what is allowed beside `tolerance` of the number itself, if that is less than
            `tolerance` of 1.
    """
    finite = np.isfinite(y)
    if not finite[: len(_NEAR)].all():
        return math.inf
    size = np.abs(expected)
    allowed = np.minimum(tolerance * np.maximum(1, size), tolerance * size + near_zero)
    return float((np.abs(y - expected) / allowed)[finite].max())


_DIGITS = 5
"""By how many tolerances the constants of a spelling may be off, most of which it hardly feels."""
_ROUNDING = 1e-14


def _rounding(chain: Sequence[ir.Node], x: ir.Value, numbers: Array, tolerance: float) -> Array:
    """By how much a chain's value may be off because its constants were rounded, and float64 is.

    Nothing else may be off near 0: what a logarithm or a division needs is an ε that is small
    beside 1, and not beside the 0 that it keeps away.
    """
    y = run(chain, x, numbers)[-1]
    off = _ROUNDING * np.maximum(1, np.abs(numbers))
    for place, constant in constants(chain).items():
        other = run(chain, x, numbers, {place: constant * (1 + _DIGITS * tolerance)})[-1]
        off = off + np.nan_to_num(np.abs(other - y), nan=0, posinf=0)
    return off


# ----- finding it -----


def recognise_activations(graph: ir.Graph, tolerance: float = 2e-6) -> None:
    """Replace every chain that computes an activation, to a relative `tolerance`, by one node."""
    place: dict[ir.Node | None, int] = {node: i for i, node in enumerate(graph)}
    known: dict[Hashable, Match | None] = {}
    with np.errstate(all="ignore"):
        for node in list(graph):
            found = _find(node, place, tolerance, known)
            if found is not None:
                x, chain, (operator, attributes) = found
                bounds = RELU6 if operator == "Clip" else ()
                inputs = [x, *(initializer(graph, np.array(b), x, "relu6") for b in bounds)]
                place[replace(node.outputs[0], operator, inputs, attributes)] = place[node]
                for spent in reversed(chain):  # which a longer chain must not share values with
                    if not spent.outputs[0].uses() and not spent.outputs[0].is_graph_output():
                        graph.remove(spent, safe=True)


def _find(
    root: ir.Node,
    place: Mapping[ir.Node | None, int],
    tolerance: float,
    known: dict[Hashable, Match | None],
) -> tuple[ir.Value, list[ir.Node], Match] | None:
    """Of an activation that ends in `root`: the value it takes, its nodes, and what it is.

    `known` are the spellings that were run before, with what they are; those run here are added.
    """
    y, alone = root.outputs[0], None
    for x, chain in _chains(root, place):
        if (len(chain) == 1 and not _may_stand_alone(root)) or not _comparable(x, y):
            continue
        spelled = _spelled(chain, x)
        if spelled not in known:
            known[spelled] = _activation(chain, x, tolerance)
        found = known[spelled]
        if found is None or (len(chain) == 1 and found[0] == root.op_type):
            continue
        # Spelled out again, a Swish shares its sigmoid with whatever else uses that.
        if found[0] == "onnxplain::Swish" or self_contained(y, x):
            if len(chain) > 1:
                return x, chain, found
            alone = x, [*chain], found
    return alone


def _may_stand_alone(node: ir.Node) -> bool:
    small = node.op_type == "Max" and any(uniform(v) for v in node.inputs)  # the ε of a norm
    return node.op_type in ALONE and not small


def _activation(chain: Sequence[ir.Node], x: ir.Value, tolerance: float) -> Match | None:
    """What a chain computes of x, if that is an activation: of several, the nearest one."""
    candidates = [*_candidates(run(chain, x, NUMBERS)[-1], tolerance)]
    if not candidates:
        return None
    numbers = np.concatenate([NUMBERS, _between(chain)])
    near_zero = _rounding(chain, x, numbers, tolerance)
    *earlier, y = run(chain, x, numbers)
    errors = []
    for _, function in candidates:
        expected = function(numbers)
        # What follows the activation is no part of it: an ε, a cap just below 1, a ReLU again.
        ended = any(_close(value, expected, tolerance) for value in earlier)
        errors.append(math.inf if ended else _error(y, expected, tolerance, near_zero))
    best = int(np.argmin(errors))
    return candidates[best][0] if errors[best] <= 1 else None


def _spelled(chain: Sequence[ir.Node], x: ir.Value) -> Hashable:
    """What a chain's numbers depend on, with places in it for the values."""
    place: dict[ir.Value | None, int] = {x: -1, None: -2}
    spelled = []
    for i, node in enumerate(chain):
        operands = tuple(
            (place[v], None) if v in place else (None, uniform(v)) for v in node.inputs
        )
        attributes = tuple((name, a.value) for name, a in sorted(node.attributes.items()))
        spelled.append((node.op_type, operands, attributes))
        place[node.outputs[0]] = i
    return tuple(spelled)


def _comparable(x: ir.Value, y: ir.Value) -> bool:
    """Whether they are floats, and no constant of the chain has stretched x, as far as is known."""
    if x.shape is None or y.shape is None or rank(x) != rank(y):
        return False
    if x.dtype is not None and not x.dtype.is_floating_point():
        return False  # of whole numbers runtimes have no activations
    numbers = [[n if isinstance(n, int) else None for n in v.shape] for v in (x, y) if v.shape]
    return len(numbers) < 2 or numbers[0] == numbers[1]


def _chains(
    root: ir.Node, place: Mapping[ir.Node | None, int]
) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """Ever longer chains of elementwise nodes that end in `root`, each after the value it takes."""
    chain: list[ir.Node] = []
    sources = {root.outputs[0]}
    while len(chain) < LONGEST:
        latest = max(sources, key=lambda value: place.get(value.producer(), -1))
        node = latest.producer()
        if node is None or node.domain != "" or node.op_type not in ELEMENTWISE:
            return
        sources.remove(latest)
        chain.insert(0, node)
        sources.update(v for v in node.inputs if v is not None and uniform(v) is None)
        if not sources:
            return
        if len(sources) == 1:
            yield next(iter(sources)), chain


def drop_idle_relus(graph: ir.Graph) -> None:
    """A Relu of what cannot be negative is the identity, and no activation of the network.

    PyTorch's LPPool2d has one, of an Abs. A ReLU that follows another, or a pool of one, stays:
    its author took it for an activation, and so does PyTorch.
    """
    for node in list(graph):
        x = node.inputs[0] if operator_name(node) == "Relu" else None
        before = None if x is None else x.producer()
        if x is None or before is None or node.outputs[0].is_graph_output():
            continue
        row = row_of(operator_name(before))
        if row.kind not in (Kind.MOVE, Kind.RECTIFIER) and row.sign(before) == ():
            ir.convenience.replace_all_uses_with(node.outputs[0], x)
            graph.remove(node, safe=True)
