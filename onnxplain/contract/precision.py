"""What precisions are called, and what a graph says of its operators for a conversion to halves.

`export` knows the operators and writes it; `onnxplain.runtime.conversion` reads it. As JSON under
one key of the file's `metadata_props`, so that a runtime needs the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from onnxplain.contract.entries import Entry
from onnxplain.errors import BackendError

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "float32": ("fp32", "float", "single"),
    "tf32": (),
    "float16": ("fp16", "half"),
    "bfloat16": ("bf16",),
    "int8": (),
}
"""What a graph may be computed in, and what else that is called."""


def precision_named(name: str) -> str:
    """The precision of that name, or which is also called so.

    Raises:
        BackendError: there is none.
    """
    for precision, others in PRECISIONS.items():
        if name.lower() in (precision, *others):
            return precision
    raise BackendError(f"unknown precision {name!r}; known: {', '.join(PRECISIONS)}")


ARRIVED = "pullback/arrived"
"""In the name of the Identity that passes a cotangent on to what need not be linear in it: until
there it is scaled in float16. In a file without one, until the pullback."""

CAMERA = "onnxplain/camera"
"""What the names of nodes begin with, before a slash, that make pixels the network's input, and put
the pullback out: they compute in float32, as they hold whole numbers."""

DRAWING = "onnxplain/picture"
"""What the names of nodes begin with, before a slash, that draw or rank what is explained: they
compute in float32, as a colour is the place of a number among 2048."""


@dataclass(frozen=True)
class OperatorPrecision(Entry):
    """How the operator types of a graph compute where its weights and activations are halves.

    Those that are in none of the three tuples compute in halves. Files of 0.1 have no such entry.

    Attributes:
        float32: those that compute in float32.
        float32_in_bfloat16: those that do so in a bfloat16 graph.
        follow: those that compute in float32 where all that they read does, or all that
            reads them.
        float32_inputs: operator type → the inputs that are float32 whatever it computes in.
    """

    KEY = "onnxplain.precision"
    KIND = "graph that says how its operators compute in half precision"

    float32: tuple[str, ...] = ()
    float32_in_bfloat16: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    float32_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        return cls(
            tuple(entry["float32"]),
            tuple(entry["float32_in_bfloat16"]),
            tuple(entry["follow"]),
            {name: tuple(inputs) for name, inputs in entry["float32_inputs"].items()},
        )
