"""Inputs of an explain graph that are one number for all images: live parameters, a step's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import ALPHA, EPS, LIMIT, TEMPERATURE
from onnxplain.contract.ranges import Range
from onnxplain.errors import InputError
from onnxplain.runtime.signature import Signature

Temperatures: TypeAlias = float | Mapping[str, float] | None
"""A live temperature, or live parameters by name; None for those exported."""


def live_inputs(signature: Signature, wanted: Temperatures) -> dict[str, NDArray[Any]]:
    """The graph's live parameters, by name: those wanted, the others as exported.

    Raises:
        InputError: a value out of the parameter's range, or for a graph with its own.
    """
    metadata = signature.metadata
    given = wanted if isinstance(wanted, Mapping) else {TEMPERATURE: wanted}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in {TEMPERATURE, *signature.live, *metadata.parameters}:
            raise InputError(
                f"{name!r} is no parameter of this graph; it takes: "
                f"{', '.join(map(repr, signature.live)) or 'none'}"
            )
        if name not in signature.live:
            how = "live_temperature=True" if name == TEMPERATURE else f"live=['{name}']"
            raise InputError(f"{name!r} is a constant of this graph; export it with {how}")
    inputs = {}
    for name in signature.live:
        value: Any = given.get(name, metadata.parameters.get(name))
        if value is None:
            raise InputError(f"the file records no {name!r}; pass one")
        allowed = metadata.ranges.get(name, Range())
        if value not in allowed:
            raise InputError(f"{name!r} {allowed.refusal(value)}")
        inputs[name] = np.array(value, signature.dtype)
    return inputs


def scalar_inputs(signature: Signature, wanted: Temperatures) -> dict[str, NDArray[Any]]:
    """The same, and for a graph with a step those of one of length 0.

    Raises:
        InputError: as `live_inputs`.
    """
    scalars = live_inputs(signature, wanted)
    if signature.step:
        zero, inf = np.zeros((), signature.dtype), np.array(np.inf, signature.dtype)
        scalars |= {ALPHA: zero, EPS: inf, LIMIT: inf}
    return scalars
