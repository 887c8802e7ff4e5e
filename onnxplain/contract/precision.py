"""What a graph says of its operators for whoever converts it to half precision.

`export` knows the operators and writes it; `onnxplain.runtime.conversion` reads it. As JSON under
one key of the file's `metadata_props`, so that a runtime needs the file alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxplain.contract.entries import to_props
from onnxplain.errors import BackendError

_KEY = "onnxplain.precision"


@dataclass(frozen=True)
class OperatorPrecision:
    """How the operator types of a graph compute where its weights and activations are halves.

    Those that are in none of the three tuples compute in halves.

    Attributes:
        float32: those that compute in float32.
        float32_in_bfloat16: those that do so in a bfloat16 graph.
        follow: those that compute in float32 where all that they read does, or all that
            reads them.
        float32_inputs: operator type → the inputs that are float32 whatever it computes in.
    """

    float32: tuple[str, ...] = ()
    float32_in_bfloat16: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    float32_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_props(self) -> dict[str, str]:
        return to_props(_KEY, self)

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> OperatorPrecision | None:
        """Read it back; None where the file does not say, as those of 0.1 do not.

        Raises:
            BackendError: the entry is damaged.
        """
        if _KEY not in props:
            return None
        try:
            entry = json.loads(props[_KEY])
            return cls(
                tuple(entry["float32"]),
                tuple(entry["float32_in_bfloat16"]),
                tuple(entry["follow"]),
                {name: tuple(inputs) for name, inputs in entry["float32_inputs"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BackendError(
                f"the file's entry {_KEY} cannot be read ({error!r}); export it again with the "
                "installed version"
            ) from error
