"""Interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from onnxplain.export.check import Case, backward_model, finished

from .check import check_vjp, cotangent_of, drawn, runtime
from .test_shaping import integers

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def resizings(draw: st.DrawFn) -> Case:
    """Scales and sizes that float32 holds exactly: at others, what is nearest is a toss-up."""
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    size = [draw(st.integers(2, 5)) for _ in range(2)]
    transformation = draw(
        st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    )
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        modes = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = draw(st.sampled_from(modes))
    if mode != "nearest" and draw(st.booleans()):
        attributes["antialias"] = 1
    elif mode == "cubic" and draw(st.booleans()):
        attributes |= {"cubic_coeff_a": -0.5, "exclude_outside": draw(st.integers(0, 1))}
    exact = [0.5, 1.0, 2.0, 4.0] if mode == "nearest" else [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0]
    scales = [draw(st.sampled_from(exact)) for _ in range(2)]
    wanted = [int(n * s) for n, s in zip(size, scales, strict=True)]
    by_sizes = draw(st.booleans())
    # Where a size is rounded, evaluator and runtime part; at one pixel the evaluator is wrong; and
    # the runtime takes a scale that changes no size for 1.
    assume(all(s == 1 or n != w for n, s, w in zip(size, scales, wanted, strict=True)))
    if (mode == "nearest" and by_sizes) or transformation == "align_corners":
        assume(all(n * s % 1 == 0 for n, s in zip(size, scales, strict=True)))
    assume(transformation != "pytorch_half_pixel" or 1 not in wanted)
    x = draw(seeds).normal(size=[draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size])
    if draw(st.booleans()):
        attributes["axes"] = [2, 3]
        given = integers(*wanted) if by_sizes else np.array(scales, np.float32)
    else:
        given = (
            integers(*x.shape[:2], *wanted) if by_sizes else np.array([1, 1, *scales], np.float32)
        )
    dynamic = [] if by_sizes and "axes" not in attributes else [0]
    return Case(
        "Resize", [x, None, *([None] if by_sizes else []), given], attributes, dynamic=dynamic
    )


@st.composite
def samplings(draw: st.DrawFn) -> Case:
    """At places inside and outside the image, none of them where the slope jumps."""
    rng = draw(seeds)
    mode, padding = (
        draw(st.sampled_from(m)) for m in (["linear", "nearest"], ["zeros", "border", "reflection"])
    )
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": draw(st.integers(0, 1))}
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size, places = ([draw(st.integers(2, 4)) for _ in range(2)] for _ in range(2))
    whole = rng.integers(-2, 5, size=[n, *places, 2]) + rng.uniform(0.05, 0.45, [n, *places, 2])
    width = np.array(size[::-1])
    if attributes["align_corners"]:
        grid = whole / (width - 1) * 2 - 1
    else:
        grid = (2 * whole + 1) / width - 1
    active = draw(st.sampled_from([[0], [1], [0, 1]] if mode == "linear" else [[0]]))
    x = rng.normal(size=[n, c, *size])
    dynamic = active if len(active) == 2 else []
    return Case("GridSample", [x, grid], attributes, active, dynamic)


@st.composite
def affine_grids(draw: st.DrawFn) -> Case:
    n, h, w = draw(st.integers(1, 2)), draw(st.integers(2, 4)), draw(st.integers(2, 4))
    attributes = draw(st.sampled_from([{}, {"align_corners": 0}, {"align_corners": 1}]))
    theta = draw(seeds).normal(size=[n, 2, 3])
    return Case("AffineGrid", [theta, integers(n, 3, h, w)], attributes, dynamic=[])


CASES = {"Resize": resizings(), "GridSample": samplings(), "AffineGrid": affine_grids()}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(12)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


# Particulars


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_resize_agrees_with_torch_autograd(mode: str):
    x = np.random.default_rng(1).normal(size=[2, 3, 4, 5])
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.interpolate(leaf, size=[8, 10], mode=mode)
    g = np.random.default_rng(0).normal(size=y.shape)
    y.backward(torch.tensor(g))
    attributes = {
        "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        "bicubic": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
        "nearest": {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    }[mode]
    case = Case("Resize", [x, None, np.array([1, 1, 2, 2], np.float32)], attributes)
    np.testing.assert_allclose(cotangent_of(case, g), leaf.grad, atol=1e-9)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("by", "n", "m"),
    [
        *(("sizes", *sizes) for sizes in [(3, 5), (6, 2), (5, 13), (4, 1), (10, 4)]),
        *(("scales", *sizes) for sizes in [(6, 2), (6, 4), (6, 8), (4, 1)]),
    ],
)
@pytest.mark.parametrize(
    "transformation", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
)
def test_resize_rounds_as_the_runtime_does(transformation: str, by: str, n: int, m: int, mode: str):
    """Sizes at which float32 decides what is nearest. Linear, so ⟨vjp(g), x⟩ is ⟨g, y⟩."""
    x = np.random.default_rng(1).normal(size=[1, 2, 3, n]).astype(np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        attributes["nearest_mode"] = "floor"
    if by == "sizes":
        case = Case("Resize", [x, None, None, integers(1, 2, 3, m)], attributes, dynamic=[])
    else:
        case = Case("Resize", [x, None, np.array([1, 1, 1, m / n], np.float32)], attributes)
    assert_transposed(case, x)


def assert_transposed(case: Case, x: np.ndarray) -> None:
    """⟨vjp(g), x⟩ is ⟨g, y⟩, by ONNX Runtime in float32."""
    forward = finished(case.forward_model(ir.DataType.FLOAT))
    (y,) = runtime(forward, {"x0": x})
    g = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    model = backward_model(case, ir.DataType.FLOAT)
    (found,) = runtime(model, {"x0": x, "g0": g})
    scale = np.linalg.norm(g) * np.linalg.norm(y)
    assert abs((found * x).sum() - (g * y).sum()) < 1e-5 * scale


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("policy", "sizes"),
    [
        ("not_larger", (7, 8)),
        ("not_smaller", (7, 8)),
        ("not_larger", (1, 3)),
        ("not_larger", (2, 3)),  # 1.5 rows become 2
        ("not_larger", (9, 5)),  # 2.5 rows become 3
        ("not_smaller", (3, 5)),
    ],
)
def test_a_resize_that_keeps_the_aspect_ratio(policy: str, sizes: tuple[int, int], mode: str):
    x = np.random.default_rng(1).normal(size=[1, 2, 2, 4]).astype(np.float32)
    attributes = {"mode": mode, "keep_aspect_ratio_policy": policy, "axes": [2, 3]}
    inputs = [x, None, None, integers(*sizes)]
    assert_transposed(Case("Resize", inputs, attributes, dynamic=[]), x)


def test_a_resize_of_a_part_of_the_image():
    """Its first half as it is, of its rows more than there are: what is put there has no slope."""
    region = np.array([0, 0, 0.25, 0, 1, 1, 1.5, 0.5])
    inputs = [
        np.random.default_rng(0).normal(size=[2, 1, 4, 5]),
        region,
        None,
        integers(2, 1, 3, 4),
    ]
    transformation = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    attributes = {"mode": "linear", "extrapolation_value": 3.0, **transformation}
    check_vjp(Case("Resize", inputs, attributes, dynamic=[]))


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_cubic_grid_sample(padding: str, align_corners: int):
    rng = np.random.default_rng(0)
    attributes = {"mode": "cubic", "padding_mode": padding, "align_corners": align_corners}
    inputs = [rng.normal(size=[1, 2, 4, 5]), rng.uniform(-1.7, 1.7, [1, 2, 3, 2])]
    check_vjp(Case("GridSample", inputs, attributes, [0, 1], []), float32=False)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_grid_sample_of_a_volume(padding: str, align_corners: int):
    rng = np.random.default_rng(0)
    attributes = {"padding_mode": padding, "align_corners": align_corners}
    inputs = [rng.normal(size=[1, 2, 2, 3, 4]), rng.uniform(-1.7, 1.7, [1, 2, 1, 2, 3])]
    case = Case("GridSample", inputs, attributes, [0, 1], [])
    check_vjp(case, float32=False, steps=(1e-3, 1e-4))


@pytest.mark.parametrize("align_corners", [0, 1])
def test_an_affine_grid_of_a_volume(align_corners: int):
    theta = np.random.default_rng(0).normal(size=[2, 3, 4])
    attributes = {"align_corners": align_corners}
    check_vjp(Case("AffineGrid", [theta, integers(2, 1, 2, 3, 4)], attributes, dynamic=[]))
