"""One row per operator: how its cotangents are found, and what else is to be known of it.

Whoever adds an operator writes its row, in the file of `onnxplain.export.vjps` that fits. Methods,
K targets, open batches, half precision and receptive fields ask the row, none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Node, Rule


class Kind(Enum):
    """What an operator is, by which a method of explanation knows the rule that it wants there."""

    RECTIFIER = auto()
    """z · 1[z > 0], with a hard or a rounded corner, and little below zero."""
    ACTIVATION = auto()
    """Any other hidden activation, and what activations are made of: a number in, a number out."""
    FUNCTION = auto()
    """A function of numbers that no network has for its activation."""
    NORMALISATION = auto()
    WEIGHTS = auto()
    """A gate, or attention's weights: of no use but to multiply what depends on the image."""
    CONVOLUTION = auto()
    MATRIX_PRODUCT = auto()
    PRODUCT = auto()
    """Elementwise; quotients and powers too, whose second operand is a weight."""
    SUM = auto()
    """Elementwise; differences and means too."""
    EXTREMUM = auto()
    """Elementwise, of several operands."""
    POOL = auto()
    """Sums with no negative weight over elements of the first input."""
    MAXIMUM = auto()
    """The largest among elements of the first input; the row names the `average` over the same."""
    INTERPOLATION = auto()
    MOVE = auto()
    """Each element comes from one of the first input (of several, where they are joined)."""
    SCATTER = auto()
    """Elements are put in the place of others."""
    RECURRENT = auto()
    """Layers with a state, from step to step of a sequence."""
    TEST = auto()
    """A truth about numbers, or of truths."""
    OTHER = auto()


class Axes(Enum):
    """How an operator treats the axes of what it reads."""

    ELEMENTWISE = auto()
    """Each element by itself; shapes broadcast."""
    IMAGES = auto()
    """The first input is [N, C, …], and each of the N is taken by itself."""
    WINDOW = auto()
    """The same, under a window that slides over all axes from the third on."""
    ALONG = auto()
    """Along the attribute `axis` of the first input."""
    CONCATENATION = auto()
    """Along it, one input behind the other."""
    INDICES = auto()
    """Along it, by one index per element."""
    TUPLES = auto()
    """The first axes together, by tuples of indices."""
    LISTED = auto()
    """Along the axes that the second input lists."""
    SLICE = auto()
    """Along those that the fourth lists."""
    MATRICES = auto()
    """The last two axes of the first input, in stacks."""
    MATRIX_PRODUCT = auto()
    GEMM = auto()
    EINSUM = auto()
    RUNNING = auto()
    """Along the axis that the second input is."""
    PADDING = auto()
    RESIZE = auto()
    TRANSPOSITION = auto()
    RESHAPE = auto()
    FLATTENING = auto()
    EXPANSION = auto()
    OTHER = auto()


class Linear(Enum):
    """In which of its inputs an operator is linear."""

    FIRST = auto()
    """The first, the others being constant."""
    TOGETHER = auto()
    """All of them, added up."""
    EACH = auto()
    """Each, the others being constant: a product."""
    NONE = auto()


class Half(Enum):
    """What an operator computes in where a graph is in halves."""

    HALF = auto()
    FOLLOWS = auto()
    """In float32 where its neighbours do: a cast before or after costs more than the operation."""
    FLOAT32 = auto()
    """Exponentials and powers, which overflow or lose the differences that go into them; statistics
    and sums over many elements, whose terms are small beside the sum."""
    FLOAT32_IN_BFLOAT16 = auto()
    """What TensorRT-RTX (1.7) refuses in bfloat16."""


Sign: TypeAlias = Callable[[Node], Sequence[ir.Value | None] | None]
"""Of which inputs of a node must no element be negative that none of its result is. None: even so,
some may be."""


def any_sign(node: Node) -> None:
    return None


def never_negative(node: Node) -> Sequence[ir.Value | None]:
    return ()


def as_first(node: Node) -> Sequence[ir.Value | None]:
    return node.inputs[:1]


def as_all(node: Node) -> Sequence[ir.Value | None]:
    return node.inputs


Inputs: TypeAlias = list[ir.Value | None]
Outputs: TypeAlias = ir.Value | Sequence[ir.Value]
BatchingRule: TypeAlias = Callable[[OpBuilder, Node, Inputs, set[int], ir.Value], Outputs]
"""`rule(op, node, inputs, mapped, K)`: the node on `inputs`, those at the indices `mapped` having
a new leading axis; `K` is that axis's size, int64 [1]."""


@dataclass(frozen=True)
class Operator:
    """A row. All but `vjp` follow from the kind (`_OF_KIND`), unless the row says otherwise."""

    vjp: Rule | None = None
    kind: Kind = Kind.OTHER
    axes: Axes = Axes.OTHER
    linear: Linear = Linear.NONE
    sign: Sign = any_sign
    half: Half = Half.HALF
    float32_inputs: tuple[int, ...] = ()
    """Inputs that the standard, or a scale's meaning, has in float32."""
    average: str | None = None
    """Of a maximum: the operator that averages the same elements."""
    batching: BatchingRule | None = None
    """For K targets, where that of its axes (`onnxplain.export.vmap`) is not right."""


class Facts(TypedDict, total=False):
    """What a row may say of an operator, each as in `Operator`."""

    axes: Axes
    linear: Linear
    sign: Sign
    half: Half
    float32_inputs: tuple[int, ...]
    average: str
    batching: BatchingRule


_POINTWISE: Facts = {"axes": Axes.ELEMENTWISE, "half": Half.FOLLOWS}

_OF_KIND: Mapping[Kind, Facts] = {
    Kind.RECTIFIER: {**_POINTWISE, "sign": as_first},
    Kind.ACTIVATION: _POINTWISE,
    Kind.FUNCTION: _POINTWISE,
    Kind.WEIGHTS: {**_POINTWISE, "sign": never_negative},
    Kind.NORMALISATION: {"half": Half.FLOAT32},
    Kind.CONVOLUTION: {"axes": Axes.WINDOW, "linear": Linear.EACH},
    Kind.MATRIX_PRODUCT: {"linear": Linear.EACH},
    Kind.PRODUCT: _POINTWISE,
    Kind.SUM: {**_POINTWISE, "linear": Linear.TOGETHER, "sign": as_all},
    Kind.EXTREMUM: {**_POINTWISE, "sign": as_all},
    Kind.POOL: {"linear": Linear.FIRST, "sign": as_first},
    Kind.MAXIMUM: {"half": Half.FOLLOWS, "sign": as_first},
    Kind.INTERPOLATION: {"half": Half.FOLLOWS, "linear": Linear.FIRST},
    Kind.MOVE: {"half": Half.FOLLOWS, "linear": Linear.FIRST, "sign": as_first},
    Kind.TEST: _POINTWISE,
}

OPERATORS: dict[str, Operator] = {}
"""Operator name (`"domain::Name"` outside the standard domain) → its row."""

_UNKNOWN = Operator()


def row_of(name: str) -> Operator:
    """The row of an operator; of one that has none, that nothing is known."""
    return OPERATORS.get(name, _UNKNOWN)


def declare(*operators: str, kind: Kind = Kind.OTHER, **facts: Unpack[Facts]) -> None:
    """The rows of operators that no cotangent passes."""
    _add(operators, None, kind, facts)


AnyRule = TypeVar("AnyRule", bound=Rule)


def register_vjp(
    *operators: str, kind: Kind = Kind.OTHER, **facts: Unpack[Facts]
) -> Callable[[AnyRule], AnyRule]:
    """Write the row of one or several operators: `@register_vjp("Relu")` above their rule.

    See `onnxplain.export.autodiff` for what a rule takes and returns. A later row replaces an
    earlier one.

    Args:
        operators: their names, `"domain::Name"` outside the standard domain.
        kind: what they are to the methods; an operator of no kind has its gradient in every method
            that changes the gradient, and none in those of relevances.
        facts: what does not follow from the kind, see `Operator`.
    """

    def register(rule: AnyRule) -> AnyRule:
        _add(operators, rule, kind, facts)
        return rule

    return register


def _add(operators: Sequence[str], vjp: Rule | None, kind: Kind, facts: Facts) -> None:
    known: dict[str, Any] = {**_OF_KIND.get(kind, {}), **facts}
    OPERATORS.update(dict.fromkeys(operators, Operator(vjp, kind, **known)))


class _Vjps(Mapping[str, Rule]):
    """The rules of `OPERATORS`."""

    def __getitem__(self, name: str) -> Rule:
        if (rule := row_of(name).vjp) is None:
            raise KeyError(name)
        return rule

    def __iter__(self) -> Iterator[str]:
        return (name for name, row in OPERATORS.items() if row.vjp is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


VJPS: Mapping[str, Rule] = _Vjps()
"""Operator name → rule of the ordinary gradient, as the table has it now."""


Rules: TypeAlias = Mapping[Kind | str, Rule]
"""A method's rules: for kinds of operators, and for single ones by name, which go before."""


def by_name(rules: Rules) -> dict[str, Rule]:
    """Operator name → rule, for all operators of the table that it has one for."""
    of_kind = {name: rules[row.kind] for name, row in OPERATORS.items() if row.kind in rules}
    return of_kind | {name: rule for name, rule in rules.items() if isinstance(name, str)}
