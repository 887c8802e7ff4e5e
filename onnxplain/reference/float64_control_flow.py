"""Control flow of the float64 evaluator. The reference evaluator joins what the rounds of a `Loop`
give end to end, and scans forwards along the first axis alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

from onnxplain.reference.float64_operators import Operator

Array = npt.NDArray[Any]
Context = Mapping[str, Array]
"""What a body may read from around it."""


class Rounds(Operator):
    """A body that is evaluated again and again."""

    def need_context(self) -> bool:
        return True


class Loop(Rounds):
    def _run(
        self, M: Array | None, cond: Array | None, *states: Array, context: Context,
        body: ReferenceEvaluator, **_: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        count, made, after = len(states), list[Sequence[Array]](), [*states]
        going = cond is None or bool(cond)
        while going and (M is None or len(made) < M):
            number = np.array(len(made), np.int64)
            on, *results = _evaluated(body, context, [number, np.array(True), *after])
            going, after = bool(on), results[:count]
            made.append(results[count:])
        at = range(1 + count, len(body.output_names))
        stacks = [_stacked(body, i, [each[i - 1 - count] for each in made], 0) for i in at]
        return (*after, *stacks)


class Scan(Rounds):
    def _run(
        self, *given: Array, context: Context, body: ReferenceEvaluator, num_scan_inputs: int,
        scan_input_axes: Sequence[int] | None = None,
        scan_input_directions: Sequence[int] | None = None,
        scan_output_axes: Sequence[int] | None = None,
        scan_output_directions: Sequence[int] | None = None, **_: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        count = len(given) - num_scan_inputs
        results = range(count, len(body.output_names))
        axes = scan_input_axes or [0] * num_scan_inputs
        ways = scan_input_directions or [0] * num_scan_inputs
        out_axes = scan_output_axes or [0] * len(results)
        out_ways = scan_output_directions or [0] * len(results)
        slices = [
            np.moveaxis(x, axis, 0)[:: -1 if back else 1]
            for x, axis, back in zip(given[count:], axes, ways, strict=True)
        ]
        after, made = [*given[:count]], list[Sequence[Array]]()
        for taken in zip(*slices, strict=True):
            parts = _evaluated(body, context, [*after, *taken])
            after = parts[:count]
            made.append(parts)
        stacks = [
            _stacked(body, i, [each[i] for each in made][:: -1 if back else 1], axis)
            for i, axis, back in zip(results, out_axes, out_ways, strict=True)
        ]
        return (*after, *stacks)


def _evaluated(body: ReferenceEvaluator, context: Context, given: Sequence[Array]) -> list[Array]:
    inputs = dict(zip(body.input_names, given, strict=True))
    return list(body.run(None, {**context, **inputs}))


def _stacked(body: ReferenceEvaluator, at: int, parts: Sequence[Array], axis: int) -> Array:
    """What the rounds give for one of the body's outputs; of no round, none of the shape that the
    body says, with a size of 1 where it says none."""
    if parts:
        return np.stack(parts, axis)
    kind = body.output_types[at].tensor_type
    part = np.zeros([d.dim_value or 1 for d in kind.shape.dim], _dtype(kind.elem_type))
    return np.stack([part], axis).take([], axis)


def _dtype(of: int) -> np.dtype[Any]:
    return tensor_dtype_to_np_dtype(of) if of else np.dtype(np.float64)


CONTROL_FLOW = [Loop, Scan]
