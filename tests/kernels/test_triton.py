"""The Triton kernels, interpreted on the CPU, against the function bodies in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxplain.export.windows import window_of
from onnxplain.kernels import bodies
from onnxplain.kernels.pool import Pool

from ..export.vjps.check import Case, add_output, builder_of, finished, forward_model, runtime
from .interpreted import interpret

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# A last place of each format; the interpreter rounds to bfloat16 towards zero.
PRECISION = {"float32": 2e-5, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass
class Comparison:
    """A call of a kernel and what the function body says."""

    call: tuple[str, str, tuple[Any, ...]]
    expected: tuple[np.ndarray, ...]


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """float32 numbers that the dtype holds too."""
    return array.astype(DTYPES[dtype]).astype(np.float32)


def run_body(build: Callable[..., Any], *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """`build(op, *inputs)` in float32 by ONNX Runtime."""
    shapes = [list(array.shape) for array in arrays]
    model = forward_model(lambda op, *xs: as_list(build(op, *xs)), shapes, ir.DataType.FLOAT)
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    return tuple(runtime(finished(model), feeds))


def as_list(values: Any) -> list[ir.Value]:
    return [values] if isinstance(values, ir.Value) else list(values)


def gate(dtype: str, normal: bool, shape: list[int], targets: list[int]) -> Comparison:
    rng, T = np.random.default_rng(0), 0.3
    body = bodies.normal_gate if normal else bodies.soft_gate
    z, g = (rounded(rng.normal(size=size), dtype) for size in (shape, targets + shape))
    expected = run_body(lambda op, z, g: body(op, z, g, T), z, g)
    return Comparison(("soft_gate", dtype, (z, g, T, normal)), expected)


def relu_gate(dtype: str, normal: bool) -> Comparison:
    z, T = rounded(np.random.default_rng(0).normal(size=[2, 3, 11, 23]), dtype), 0.3
    body = bodies.relu_normal_gate if normal else bodies.relu_soft_gate
    expected = run_body(lambda op, z: body(op, z, T), z)
    return Comparison(("relu_soft_gate", dtype, (z, T, normal)), expected)


def random_pool(rng: np.random.Generator, axes: int) -> Case:
    """A max-pool of any geometry that ONNX Runtime runs."""
    kernel, strides, dilations = rng.integers([[1], [1], [1]], [[5], [5], [4]], [3, axes])
    pads = rng.integers(0, np.tile(kernel, 2))
    reach = (kernel - 1) * dilations + 1
    attributes = {"dilations": dilations.tolist(), "pads": pads.tolist()}
    if rng.random() < 0.5:
        # Shape inference before opset 22 counts windows that start in the padding at the end.
        strides = np.minimum(strides, reach - pads[axes:])
        attributes["ceil_mode"] = 1
    attributes |= {"kernel_shape": kernel.tolist(), "strides": strides.tolist()}
    size = reach + rng.integers(0, 9, axes)
    return Case("MaxPool", [rng.normal(size=[2, 2, *size])], attributes)


def pool_grad(case: Case, dtype: str, T: float, held: bool, targets: list[int]) -> Comparison:
    body = bodies.weighted_pool_grad if held else bodies.soft_max_pool_grad
    x = rounded(case.inputs[0], dtype)
    model = forward_model(case.build, [list(x.shape)], ir.DataType.FLOAT)
    (value,), (y,) = model.graph.inputs, model.graph.outputs
    window = window_of(y.producer(), value, y)
    g = rounded(np.random.default_rng(1).normal(size=[*targets, *y.shape]), dtype)
    op = builder_of(model)
    cotangent = op.builder.input("g", ir.DataType.FLOAT, y.shape)
    model.graph.outputs[:] = []
    add_output(model, body(op, value, cotangent, window, T), "pullback", like=value)
    proto = finished(model)
    each = [runtime(proto, {"x0": x, "g": one})[0] for one in g.reshape(-1, *y.shape)]
    expected = np.array(each).reshape([*targets, *x.shape])
    pool = Pool.along(window.kernel, window.strides, window.dilations, window.before)
    rows = [1] * (len(window.size) == 1)
    x, g = (a.reshape([*a.shape[:-1], *rows, a.shape[-1]]) for a in (x, g))
    arguments = (x, g, pool, T, held)
    return Comparison(("soft_max_pool_grad", dtype, arguments), (expected,))


SPECS: dict[str, Callable[[], Comparison]] = {}
for _dtype in DTYPES:
    for _normal in (False, True):
        _kind = f"{_dtype} {'normal' if _normal else 'logistic'}"
        SPECS[f"relu and gate, {_kind}"] = partial(relu_gate, _dtype, _normal)
        for _shape, _targets in [([2, 3, 5, 7], []), ([2500], []), ([2, 700], [3])]:
            SPECS[f"gate, {_kind}, {_shape} × {_targets}"] = partial(
                gate, _dtype, _normal, _shape, _targets
            )
for _i, _case in enumerate(
    random_pool(np.random.default_rng(i), 1 + (i % 4 > 0)) for i in range(24)
):
    _dtype = ["float32", "float16", "bfloat16", "float32"][_i % 4]
    _held, _targets = _i % 3 == 0, [2] if _i % 5 == 0 else []
    SPECS[f"pool {_i}, {_dtype}, {_case}, × {_targets}, held: {_held}"] = partial(
        pool_grad, _case, _dtype, 0.3, _held, _targets
    )


@pytest.fixture(scope="module")
def comparisons(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Comparison, Any]]:
    made = [build() for build in SPECS.values()]
    found = interpret([c.call for c in made], tmp_path_factory.mktemp("interpreted"))
    return dict(zip(SPECS, zip(made, found, strict=True), strict=True))


@pytest.mark.parametrize("spec", SPECS)
def test_the_kernel_computes_what_the_function_body_does(
    spec: str, comparisons: dict[str, tuple[Comparison, Any]]
):
    comparison, found = comparisons[spec]
    precision = PRECISION[comparison.call[1]]
    for kernel, body in zip(found, comparison.expected, strict=True):
        np.testing.assert_allclose(
            kernel.reshape(body.shape), body, rtol=precision, atol=precision * np.abs(body).max()
        )


def test_statistics_are_stored_for_some_of_the_pools_and_recomputed_for_others(
    comparisons: dict[str, tuple[Comparison, Any]],
):
    calls = [comparison.call for comparison, _ in comparisons.values()]
    pools = [arguments[2] for name, _, arguments in calls if name == "soft_max_pool_grad"]
    assert {pool.stores_statistics for pool in pools} == {True, False}
