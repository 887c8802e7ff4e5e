"""What `differentiate` may be asked for, and what the file that it writes says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from onnxplain.contract.entries import Entry
from onnxplain.options import option

GRADIENT, JACOBIAN, HESSIAN_PRODUCT = "grad.{wrt}", "jacobian.{of}.{wrt}", "hvp.{wrt}"
"""The names of the outputs that are added."""

SEED, DIRECTION = "seed.{of}", "direction.{wrt}"
"""The names of the inputs that are added: the cotangent of an output, the vector of a product."""

ONES, INPUT = "ones", "input"


@dataclass(frozen=True, kw_only=True)
class DifferentiateOptions:
    """The options of `onnxplain.differentiate`; each field says what it is for."""

    of: str | Sequence[str] | None = option(
        None,
        "What is differentiated: an output, or any inner value of floats, by name. Of several, the "
        "sum. On the command line, the option again for more.",
        unset="the only output of floats",
    )
    wrt: str | Sequence[str] | None = option(
        None,
        "With respect to what: an input, a weight, or any inner value of floats, by name. On the "
        "command line, the option again for more.",
        unset="every input of floats",
    )
    seed: str = option(
        ONES,
        "The cotangent that the sweep starts from: ones, for the gradient of the sum of all that "
        "`of` holds; or input, for the vector–Jacobian product with an input seed.NAME.",
        choices=(ONES, INPUT),
    )
    jacobian: bool = option(
        False,
        "Instead of gradients, whole Jacobians: jacobian.OF.WRT, of the shape of OF and then that "
        "of WRT. An open first axis of both is a batch, whose samples are apart: it stands once.",
    )
    second: bool = option(
        False,
        "Also Hessian–vector products: hvp.NAME, with an input direction.NAME for each of `wrt`.",
    )
    sizes: Mapping[str, int] | None = option(
        None,
        "Numbers for sizes that the file leaves open, by name. On the command line atoms=12, and "
        "the option again for more.",
        unset="they stay open",
    )
    prefix: str = option(
        "", "What the names of the new inputs and outputs begin with, where those are taken."
    )
    check: bool = option(
        True,
        "Compare the outputs with the network's own, on noise, before the file takes its place.",
    )
    budget: float = option(
        1.0,
        "What the network may grow to, as a multiple of the usual limits: 200,000 nodes, and "
        "Jacobians of 4,096 rows.",
        above=0,
    )
    progress: Callable[[str], None] = option(
        lambda stage: None, "Called with each of `onnxplain.export.differentiate.STAGES`."
    )


@dataclass(frozen=True)
class Derivatives(Entry):
    """What a file of `differentiate` says of itself.

    Attributes:
        source: the name of the network's file.
        of, wrt: what is differentiated, and with respect to what.
        seed: "ones", or "input" where the cotangents are inputs.
        inputs, outputs: those added to the network's own, by name, each in words.
        notes: sentences on what the user should know.
    """

    KEY = "onnxplain.derivatives"
    KIND = "graph of derivatives (onnxplain differentiate)"

    version: str
    source: str
    of: tuple[str, ...]
    wrt: tuple[str, ...]
    seed: str = ONES
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        lists = {name: tuple(entry[name]) for name in ("of", "wrt", "notes")}
        return cls(**{**entry, **lists})
