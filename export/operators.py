"""One row per operator: its VJP, and whatever else the rest of the package needs to know of it.

Whoever adds an operator writes its row, in the file of `onnxplain.export.vjps` that fits. Methods,
K targets, open batches, half precision and receptive fields ask the row, and name no operator.
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
    """What an operator is: methods of explanation have one rule for a whole kind."""

    RECTIFIER = auto()
    """z · 1[z > 0] or close to it: the corner may be round, and a little may pass below zero."""
    ACTIVATION = auto()
    """Any other hidden activation, and the functions of one number that activations are made of."""
    FUNCTION = auto()
    """Any other elementwise function, which no network has as its activation."""
    NORMALISATION = auto()
    WEIGHTS = auto()
    """A gate, or attention's weights: it only ever multiplies what depends on the image."""
    CONVOLUTION = auto()
    MATRIX_PRODUCT = auto()
    PRODUCT = auto()
    """Elementwise; quotients and powers too, in which the second operand is the weight."""
    SUM = auto()
    """Elementwise; differences and means too."""
    EXTREMUM = auto()
    """Elementwise, of several operands."""
    POOL = auto()
    """Sums over elements of the first input, none with a negative weight."""
    MAXIMUM = auto()
    """The largest of several elements of the first input; `average` names the mean of the same."""
    INTERPOLATION = auto()
    MOVE = auto()
    """Each element is copied from the first input (from any input, where they are joined)."""
    SCATTER = auto()
    """Some elements are overwritten by others."""
    RECURRENT = auto()
    """Layers with a state, from step to step of a sequence."""
    TEST = auto()
    """Comparisons and logic: the result is boolean."""
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
    """Along it, one input after the other."""
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
    """The precision that an operator computes in when its graph is converted to half precision."""

    HALF = auto()
    FOLLOWS = auto()
    """In float32 where its neighbours do: a cast before or after costs more than the operation."""
    FLOAT32 = auto()
    """Exponentials and powers, which overflow or lose the differences that go into them; statistics
    and sums over many elements, whose terms are small beside the sum."""
    FLOAT32_IN_BFLOAT16 = auto()
    """What TensorRT-RTX (1.7) refuses in bfloat16."""


Sign: TypeAlias = Callable[[Node], Sequence[ir.Value | None] | None]
"""The inputs of a node by which its result is nowhere negative if they are not. None: it may be,
whatever they are."""


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
    homogeneous: Sequence[int] = ()
    """Its inputs x with f(a x) = a f(x) for every a > 0: all together, or either of a product."""
    sign: Sign = any_sign
    half: Half = Half.HALF
    float32_inputs: tuple[int, ...] = ()
    """Inputs that stay float32, as the standard or the meaning of a scale demands."""
    average: str | None = None
    """Of a maximum: the operator that averages the same elements."""
    on_cuda: bool = True
    """Whether ONNX Runtime's CUDA provider (1.31) has a kernel for it at opset 20."""
    batching: BatchingRule | None = None
    """For K targets, where the rule of its axes (`onnxplain.export.vmap`) does not fit."""

    @property
    def mixes_axes(self) -> bool:
        """Whether an axis of the result may be another than that of its size in the first input."""
        mixing = (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT)
        return self.kind in mixing or self.axes is Axes.TRANSPOSITION


class Facts(TypedDict, total=False):
    """What a row may say of an operator, each as in `Operator`."""

    axes: Axes
    linear: Linear
    homogeneous: Sequence[int]
    sign: Sign
    half: Half
    float32_inputs: tuple[int, ...]
    average: str
    on_cuda: bool
    batching: BatchingRule


_FIRST, _ALL = (0,), range(64)

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
    Kind.SUM: {**_POINTWISE, "linear": Linear.TOGETHER, "homogeneous": _ALL, "sign": as_all},
    Kind.EXTREMUM: {**_POINTWISE, "homogeneous": _ALL, "sign": as_all},
    Kind.POOL: {"linear": Linear.FIRST, "homogeneous": _FIRST, "sign": as_first},
    Kind.MAXIMUM: {"half": Half.FOLLOWS, "homogeneous": _FIRST, "sign": as_first},
    Kind.INTERPOLATION: {"half": Half.FOLLOWS, "linear": Linear.FIRST, "homogeneous": _FIRST},
    Kind.MOVE: {
        "half": Half.FOLLOWS,
        "linear": Linear.FIRST,
        "homogeneous": _FIRST,
        "sign": as_first,
    },
    Kind.TEST: _POINTWISE,
}

OPERATORS: dict[str, Operator] = {}
"""Operator name (`"domain::Name"` outside the standard domain) → its row."""

_UNKNOWN = Operator()


def row_of(name: str) -> Operator:
    """The row of an operator; if it has none, a row that knows nothing of it."""
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

    Raises:
        TypeError: no name of an operator, a kind that is no `Kind`, or a rule that is no function.
    """
    if not operators or not all(isinstance(name, str) for name in operators):
        raise TypeError('register_vjp takes names of operators: @register_vjp("Relu")')
    if not isinstance(kind, Kind):
        raise TypeError(f"kind is one of Kind's: {', '.join(map(str, Kind))}; not {kind!r}")

    def register(rule: AnyRule) -> AnyRule:
        if not callable(rule):
            raise TypeError(f"a rule is a function, not {rule!r}")
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
