"""The fused operations as ONNX functions: calls of them in a graph, in place of their bodies.

A `KernelBuilder` builds graphs in which they stay calls, `GraphBuilder` writes their bodies out. A
call runs everywhere: it names a function of the model, whose body is in standard operators, so a
runtime without a kernel of that name runs the body.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder, build_function

from onnxplain.kernels.windows import Window

DOMAIN = "onnxplain.kernels"

Body = TypeVar("Body", bound=Callable[..., Any])


class KernelBuilder(GraphBuilder):  # type: ignore[misc]
    """A builder that calls the functions of the fused operations instead of their bodies."""


def fused(name: str, of_tiles: Callable[..., Any] | None = None) -> Callable[[Body], Body]:
    """Let `body(op, *values)` call the function `name` where a `KernelBuilder` is at work.

    The values are tensors, numbers, and a `Window`. Tensors and numbers are the function's inputs.
    A window, on which nearly every node of a body depends, is part of the function's name, with the
    sizes that it slides over, and stands in attributes of the call: `kernel_shape`, `strides`,
    `dilations` and `pads`, which are negative where the last elements are in no window.
    (Overloads of one name would say so more directly, but the parser of TensorRT-RTX 1.7 and the
    reference evaluator of onnx 1.23 silently use one of them for all.)

    Args:
        of_tiles: what is written out, in place of the body, where the window tiles. It need not
            take cotangents with an axis K, as a function's body must: `vmap` rewrites its nodes.
    """

    def decorate(body: Body) -> Body:
        names = list(inspect.signature(body).parameters)[1:]

        @wraps(body)
        def emit(op: OpBuilder, *values: Any) -> Any:
            if not isinstance(op.builder, KernelBuilder):
                window = _window(values)
                form = of_tiles if of_tiles and window and window.tiles else body
                return form(op, *values)
            return _call(op, name, body, dict(zip(names, values, strict=True)))

        return emit  # type: ignore[return-value]

    return decorate


def _call(op: OpBuilder, name: str, body: Callable[..., Any], values: dict[str, Any]) -> Any:
    window = _window(values.values())
    tensors = {n: v for n, v in values.items() if isinstance(v, ir.Value)}
    like = next(iter(tensors.values()))
    inputs = {
        n: v if n in tensors else _scalar(op, v, like) for n, v in values.items() if v is not window
    }
    formal = {n: ir.val(n, v.dtype, v.shape) for n, v in inputs.items()}

    def trace(inner: OpBuilder, *given: ir.Value) -> Any:
        found = dict(zip(formal, given, strict=True))
        return body(inner, *(found.get(n, window) for n in values))

    attributes = {} if window is None else window_attributes(window)
    function = build_function(
        trace,
        list(formal.values()),
        domain=DOMAIN,
        name=name if window is None else f"{name}_{geometry_name(like, window)}",
        attributes={n: ir.Attr(n, ir.AttributeType.INTS, None) for n in attributes},
        opset_imports={"": op.builder.graph.opset_imports[""]},
    )
    results = op.call(function, *inputs.values(), **attributes)
    made = [results] if isinstance(results, ir.Value) else results
    for value, inner in zip(made, function.outputs, strict=True):
        value.dtype, value.shape = inner.dtype, inner.shape
    for value in _values(function):  # it serves calls of other shapes too
        value.shape = None
    return results


def _window(values: Iterable[Any]) -> Window | None:
    return next((v for v in values if isinstance(v, Window)), None)


def window_attributes(window: Window) -> dict[str, list[int]]:
    """The attributes by which a call gives its window."""
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "pads": [*window.before, *window.after],
    }


def geometry_name(x: ir.Value, window: Window) -> str:
    """For example `64x56x56_to_28x28_kernel_3x3_strides_2x2_dilations_1x1_from_1x1`."""
    parts = {
        "to": window.out,
        "kernel": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "from": window.before,
    }
    sizes = "x".join(map(str, [*(x.shape or ())][1:]))
    return "_".join([sizes, *(f"{n}_{'x'.join(map(str, v))}" for n, v in parts.items())])


def _scalar(op: OpBuilder, number: float, like: ir.Value) -> ir.Value:
    dtype = like.dtype or ir.DataType.FLOAT
    name = f"pullback.number_{len(op.builder.graph.initializers)}"
    tensor = ir.tensor(np.array(number, dtype.numpy()), dtype=dtype, name=name)
    return op.builder.initializer(tensor, name, qualify=False)


def _values(function: ir.Function) -> list[ir.Value]:
    return [*function.inputs, *(y for node in function for y in node.outputs)]
