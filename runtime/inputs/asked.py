"""Whether what is asked of a file can be answered, before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from onnxplain.runtime.inputs.objective import check_inputs
from onnxplain.runtime.inputs.scalars import Temperatures, live_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.signature import Signature


def check_asked(
    signature: Signature,
    targets: Sequence[int | str] | None,
    temperature: Temperatures = None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """
    Args:
        targets: None for what the objective explains by itself.
        temperature: as for `Explainer.__call__`.
        inputs: what the objective takes besides, its boxes in pixels of the photographs.

    Raises:
        InputError: a class index out of range, a name that no class has, a target or an input of
            an objective that takes none; or a temperature that the graph cannot take.
    """
    live_inputs(signature, temperature)
    check_inputs(signature, inputs)
    if targets is not None:
        rows: Any = [list(targets)] if signature.multi_target else list(targets)
        target_input(signature, rows, len(rows))
