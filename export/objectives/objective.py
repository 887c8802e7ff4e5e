"""What an objective is, the scalar per sample that is explained, and the table of those there are.

An objective reads the network's outputs, the batch axis first, and emits one number per sample:
plain nodes behind the canonical forward pass. The backward pass starts there: by ordinary gradients
through the objective's own nodes, and from the network's outputs on by the method's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import OPTIONAL_INPUTS, RESERVED, TARGET
from onnxplain.contract.objective import BOX, INDEX, MASK, NUMBERS, Explained, ObjectiveInput
from onnxplain.errors import SourceError
from onnxplain.export.registry import Registry
from onnxplain.export.tensors import dims, is_known, rank, static, usual

NO_IMAGE = "it is not explained by an image of a known size"


@dataclass(frozen=True)
class Output:
    """A float output of the network.

    Attributes:
        name: its own.
        value: as the network puts it out.
        batch: which of its axes is the batch.
    """

    name: str
    value: ir.Value
    batch: int = 0

    @property
    def sizes(self) -> list[int]:
        """Those behind the batch, once that is the first axis; of an image of any size those where
        it has its usual one: what is emitted must not be of them, where the output `is_open`.

        Raises:
            OpenSizeError: one is known at run time only.
        """
        known = [n for axis, n in enumerate(usual(self.value)) if axis != self.batch]
        if None in known:
            before = static(self.value, 0, self.batch) if self.batch else []
            return [*before, *static(self.value, self.batch + 1)]
        return [n for n in known if n is not None]

    @property
    def is_open(self) -> bool:
        """Whether another axis than the batch is of open size."""
        others = (n for axis, n in enumerate(dims(self.value)) if axis != self.batch)
        return not all(map(is_known, others))

    def with_batch_first(self, op: OpBuilder, value: ir.Value | None = None) -> ir.Value:
        """Its value, or another of the same axes, with the batch first."""
        value = self.value if value is None else value
        others = [axis for axis in range(rank(value)) if axis != self.batch]
        return op.Transpose(value, perm=[self.batch, *others]) if self.batch else value


@dataclass(frozen=True)
class Network:
    """What an objective is asked about: the image, or another value that is explained, the outputs
    whose batch axis is known, and the names of classes, where there are any."""

    image: ir.Value
    outputs: Sequence[Output]
    labels: Sequence[str] = ()

    @property
    def has_image(self) -> bool:
        """Whether that can be an image, [N, C, H, W] or [N, H, W, C], of a known or usual size."""
        return rank(self.image) == 4 and None not in usual(self.image)[1:]


Settings: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Fit:
    """What an objective takes of a network.

    Attributes:
        outputs: those that it reads, by what they are to it.
        axes: of each of them, what its axes are, the batch as the network has it; of one that is
            left out, the batch alone is told.
        why: what shows that they are that, in words.
        sure: whether it may be taken without being asked for.
        classes, ranks: how many classes a target chooses from, how far a negative one counts.
        shapes: of its inputs, behind the batch; [] unless said.
        limits: of its inputs that are indices, how many there are to choose from.
        settings: with those that were found by themselves.
        unshown: the names of those that nothing shows, and which must be chosen.
        activation: what makes the explained values probabilities.
        no_class: what it means that no one class is explained, in words.
        nonzero: the inputs that may not be all 0.
        image: the network's input, where its size matters.
    """

    outputs: Mapping[str, Output]
    axes: Mapping[str, Sequence[str]]
    why: str
    sure: bool = False
    classes: int = 0
    ranks: int = 0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    unshown: Sequence[str] = ()
    activation: str = ""
    no_class: str = ""
    nonzero: Sequence[str] = ()
    image: ir.Value | None = None


@dataclass(frozen=True)
class Input:
    """An input that the explain graph gets.

    Attributes:
        name: as in the file.
        help: what it is, in a few words.
        kind: INDEX, NUMBERS, MASK or BOX of `onnxplain.contract.objective`.
        default: the number that it is full of unless given; None where it must be given.
    """

    name: str
    help: str
    kind: str = NUMBERS
    default: float | None = None

    def dtype(self, image: ir.Value) -> ir.DataType | None:
        """That of its values."""
        return ir.DataType.INT64 if self.kind == INDEX else image.dtype


@dataclass(frozen=True)
class Setting:
    """A choice at export.

    Attributes:
        name: what it is called.
        help: what it is for, in a few words.
        choices: what it may be; empty for a whole number above 0.
    """

    name: str
    help: str
    choices: tuple[str, ...] = ()

    def check(self, value: str) -> None:
        """
        Raises:
            SourceError: it cannot be that.
        """
        if self.choices and value not in self.choices:
            choices = ", ".join(self.choices)
            raise SourceError(f"the setting {self.name} is one of {choices}, not {value!r}")
        if not self.choices and not (value.isdecimal() and int(value)):
            raise SourceError(f"the setting {self.name} is a whole number above 0, not {value!r}")

    def asked(self) -> str:
        """What may be chosen, as boxes=cxcywh|xyxy."""
        return f"{self.name}={'|'.join(self.choices) or 'NUMBER'}"


Fitting: TypeAlias = Callable[[Network, Settings], Fit | str]
"""What it takes of a network's outputs, or why it cannot: "no output is [N, …]"."""

Emitted: TypeAlias = ir.Value | tuple[ir.Value, Mapping[str, ir.Value]]
"""The scalar of each sample, [N]; and outputs of the objective's own, [N, …], by name."""

Emission: TypeAlias = Callable[[OpBuilder, Fit, Mapping[str, ir.Value]], Emitted]
"""`emit(op, fit, inputs)`, the inputs by name, [N, …]."""

Cotangent: TypeAlias = Callable[[OpBuilder, ir.Value, ir.Value], ir.Value]


@dataclass(frozen=True)
class Objective:
    """A scalar per sample.

    Attributes:
        name: what users call it.
        help: what it is, in a line.
        fits: what it takes of a network's outputs.
        emit: emits it.
        inputs: what it takes besides the image, in the file's order.
        settings: what can be chosen at export.
        declares: further inputs, which depend on the network's outputs.
        cotangent: of a classifier's: its gradient by the logits [N, classes], of them and the
            target's one-hot vector; instead of `fits` and `emit`.
        scalar: of the same, itself, [N] or [N, K]; estimators ask for it.
        whole: whether its gradient is its derivative: what it holds constant, if anything, is a
            choice, which changes by jumps alone.
        aliases: what else it is called; spelling does not count.

    Raises:
        ValueError: no name, or an input of a name that the graph has already.
    """

    name: str
    help: str
    fits: Fitting | None = None
    emit: Emission | None = None
    inputs: tuple[Input, ...] = ()
    settings: tuple[Setting, ...] = ()
    cotangent: Cotangent | None = None
    scalar: Cotangent | None = None
    declares: Callable[[Network], tuple[Input, ...]] | None = None
    whole: bool = False
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not self.name.strip():
            raise ValueError(f"{self.name!r} cannot be an objective's name")
        if (self.cotangent is None) == (self.emit is None or self.fits is None):
            raise ValueError(f"objective {self.name!r} has fits and emit, or else a cotangent")
        names = [one.name for one in self.inputs]
        if len({*names, *_TAKEN}) < len(names) + len(_TAKEN):
            raise ValueError(f"objective {self.name!r} has inputs of one name, or of a taken one")

    def of(self, network: Network) -> Objective:
        """The same with all its inputs.

        Raises:
            SourceError: one of a name that the graph has already.
        """
        if self.declares is None:
            return self
        try:
            return replace(self, inputs=self.declares(network), declares=None)
        except ValueError as error:
            raise SourceError(str(error)) from None

    def fit(self, network: Network, settings: Settings) -> Fit:
        """What it takes of a network's outputs.

        Raises:
            SourceError: it has no such setting; or it does not fit, and why; or which settings
                must be chosen; or an input is of no shape of its kind.
        """
        assert self.fits is not None
        known = {setting.name: setting for setting in self.settings}
        for name, value in settings.items():
            if name not in known:
                raise SourceError(
                    f"objective {self.name!r} has no setting {name!r}; it has "
                    f"{', '.join(known) or 'none'}"
                )
            known[name].check(str(value))
        found = self.fits(network, settings)
        if isinstance(found, str):
            raise SourceError(f"objective {self.name!r} does not fit: {found}")
        for one in self.inputs:
            shape = list(found.shapes.get(one.name, ()))
            if (one.kind == BOX and shape != [4]) or (one.kind == MASK and len(shape) != 2):
                wanted = "a box is [4]" if one.kind == BOX else "a region is [height, width]"
                raise SourceError(
                    f"objective {self.name!r} gives its input {one.name!r} the shape {shape}, and "
                    f"{wanted}"
                )
        if found.unshown:
            raise SourceError(
                f"objective {self.name!r} cannot tell enough: {found.why}; choose the settings "
                + "; ".join(f"{one.asked()} ({one.help})" for one in self.unshown(found))
            )
        return found

    def own(self, settings: Settings) -> Settings | None:
        """Those that it has; None where one of them cannot be what it is."""
        found = {one.name: one for one in self.settings if one.name in settings}
        try:
            for name, setting in found.items():
                setting.check(settings[name])
        except SourceError:
            return None
        return {name: settings[name] for name in found}

    def unshown(self, fit: Fit) -> list[Setting]:
        """Those that must be chosen."""
        return [one for one in self.settings if one.name in fit.unshown]

    def described(self, fit: Fit) -> Explained:
        """What the file says of it."""
        return Explained(
            name=self.name,
            why=fit.why,
            axes={name: tuple(axes) for name, axes in fit.axes.items()},
            inputs={
                one.name: ObjectiveInput(
                    one.help,
                    tuple(fit.shapes.get(one.name, ())),
                    one.default,
                    one.kind,
                    fit.limits.get(one.name),
                    one.kind == MASK
                    or (one.kind == BOX and one.default is None)
                    or one.name in fit.nonzero,
                )
                for one in self.inputs
            },
            classes=fit.classes,
            ranks=fit.ranks,
            activation=fit.activation,
            no_class=fit.no_class,
            settings=dict(fit.settings),
        )


_TAKEN = {*RESERVED, *OPTIONAL_INPUTS} - {TARGET}

OBJECTIVES: Registry[Objective] = Registry("objective")
"""Name → objective; those that are found by themselves are asked in this order."""

register_objective, get_objective = OBJECTIVES.register, OBJECTIVES.named


_HELD = "onnxplain.held"


def hold(op: OpBuilder, value: ir.Value, *, relevance_only: bool = False) -> ir.Value:
    """The value as a constant of an objective: it is computed, and no gradient flows through it.

    Args:
        relevance_only: whether it is one for relevance propagation alone, as statistics of norms
            and gates are.
    """
    held = op.Identity(value)
    node = held.producer()
    assert node is not None
    node.metadata_props[_HELD] = "relevance" if relevance_only else "always"
    return held


def is_held(node: ir.Node, relevance: bool = False) -> bool:
    """Whether a node holds what it is given; `relevance` is what a method's sweep carries."""
    kinds = ("always", "relevance") if relevance else ("always",)
    return node.metadata_props.get(_HELD) in kinds


def is_choice(node: ir.Node) -> bool:
    """Whether a node of an objective holds a value constant, or puts out whole numbers: indices of
    what it chose."""
    return is_held(node) or any(y.dtype == ir.DataType.INT64 for y in node.outputs)
