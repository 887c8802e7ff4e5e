"""The fused operations as ONNX functions: calls of them in a graph, in place of their bodies.

A `KernelBuilder` builds graphs in which they stay calls, `Builder` writes their bodies out. A
call runs everywhere: it names a function of the model, whose body is in standard operators. Where
the library of `kernels/library` is registered, ONNX Runtime takes its operator of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder, build_function

from onnxplain.building import Builder
from onnxplain.contract.explain import KERNELS_DOMAIN
from onnxplain.kernels.windows import Window

DOMAIN = KERNELS_DOMAIN

Body = TypeVar("Body", bound=Callable[..., Any])


GEOMETRIES = 32
"""How many windows of one operation in one graph the library has names for."""

DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""What its kernels take."""


class KernelBuilder(Builder):
    """A builder that calls the functions of the fused operations instead of their bodies."""

    def __init__(self, graph: ir.Graph) -> None:
        super().__init__(graph)
        self._geometries: dict[str, list[tuple[Any, ...]]] = {}

    def function_name(self, name: str, x: ir.Value, window: Window | None) -> str | None:
        """The function's, of an operation on `x`; None where no kernel could have its place.

        Nearly every node of a pool's body depends on the window and on the sizes that it slides
        over, so each combination is a function of its own: `SoftMaxPoolGrad_1`, `_2`, …. (Overloads
        of one name would say so more directly, but the parser of TensorRT-RTX 1.7 and the
        reference evaluator of onnx 1.23 silently use one of them for all.)
        """
        if x.dtype not in DTYPES:
            return None
        if window is None:
            return name
        known = self._geometries.setdefault(name, [])
        geometry = (x.dtype, window, *(x.shape or ())[1:])
        if geometry not in known:
            known.append(geometry)
        number = known.index(geometry) + 1
        return f"{name}_{number}" if number <= GEOMETRIES else None


def fused(name: str, written: Callable[..., Any] | None = None) -> Callable[[Body], Body]:
    """Let `body(op, *values)` call the function `name` where a `KernelBuilder` is at work.

    The values are tensors, numbers, and a `Window`. Tensors and numbers are the function's inputs.
    A window stands in attributes of the call: `kernel_shape`, `strides`, `dilations` and `pads`,
    which are negative where the last elements are in no window.

    Args:
        written: what is written out in place of the body. It need not take cotangents with an axis
            K, as a function's body must: `vmap` rewrites its nodes.
    """

    def decorate(body: Body) -> Body:
        names = list(inspect.signature(body).parameters)[1:]

        @wraps(body)
        def emit(op: OpBuilder, *values: Any) -> Any:
            builder = op.builder
            if isinstance(builder, KernelBuilder):
                function = builder.function_name(name, values[0], _window(values))
                if function is not None:
                    return _call(op, function, body, dict(zip(names, values, strict=True)))
            return (written or body)(op, *values)

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
        name=name,
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


def _scalar(op: OpBuilder, number: float, like: ir.Value) -> ir.Value:
    dtype = like.dtype or ir.DataType.FLOAT
    name = f"pullback.number_{len(op.builder.graph.initializers)}"
    tensor = ir.tensor(np.array(number, dtype.numpy()), dtype=dtype, name=name)
    return op.builder.initializer(tensor, name, qualify=False)


def _values(function: ir.Function) -> list[ir.Value]:
    return [*function.inputs, *(y for node in function for y in node.outputs)]
