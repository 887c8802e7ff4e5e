"""Operators that move elements about as their axes lie."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onnxplain.errors import SourceError
from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import Case, builder_of, forward_model

from .check import check_vjp, cotangent_of, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)
LAST = int(np.iinfo(np.int64).max)
FIRST = int(np.iinfo(np.int64).min)


def shapes(least: int = 1, most: int = 4) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 4), min_size=least, max_size=most)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@st.composite
def images(draw: st.DrawFn, least: int = 1, most: int = 4) -> np.ndarray:
    return draw(seeds).normal(size=draw(shapes(least, most)))


def from_either_end(draw: st.DrawFn, axis: int, rank: int) -> int:
    return axis - rank if draw(st.booleans()) else axis


# ----- the same elements in the same order -----


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    """0 copies a size, -1 is what remains."""
    x = draw(images(2))
    n, *rest = x.shape
    size = int(np.prod(rest))
    shape = draw(
        st.sampled_from(
            [[0, -1], [-1, size], [0, size, 1], [0, 0, -1], [-1], [n, 1, -1], [1, -1, size]]
        )
    )
    return Case("Reshape", [x, integers(*shape)])


@st.composite
def flattenings(draw: st.DrawFn) -> Case:
    x = draw(images())
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim + 1)]))
    return Case("Flatten", [x], {} if axis is None else {"axis": axis})


@st.composite
def squeezings(draw: st.DrawFn, op: str) -> Case:
    x = draw(images(1, 3))
    full = x.ndim + draw(st.integers(1, 2))
    chosen = draw(st.permutations(range(full)))[: full - x.ndim]
    axes = integers(*(from_either_end(draw, axis, full) for axis in chosen))
    if op == "Unsqueeze":
        return Case(op, [x, axes])
    wide = np.expand_dims(x, tuple(int(a) for a in axes))
    if draw(st.booleans()) and 1 not in x.shape:
        return Case(op, [wide], dynamic=[])
    return Case(op, [wide, axes], dynamic=[] if 0 in chosen else [0])


# ----- the same elements elsewhere -----


@st.composite
def transpositions(draw: st.DrawFn) -> Case:
    x = draw(images())
    perm = draw(st.permutations(range(x.ndim)))
    return Case("Transpose", [x], draw(st.sampled_from([{}, {"perm": list(perm)}])))


@st.composite
def expansions(draw: st.DrawFn) -> Case:
    """The shape given may be the shorter one, and hold ones where x is wide."""
    full = draw(shapes())
    own = [
        size if draw(st.booleans()) else 1 for size in full[draw(st.integers(0, len(full) - 1)) :]
    ]
    wanted = [size if n == 1 or draw(st.booleans()) else 1 for size, n in zip(
        full, [1] * (len(full) - len(own)) + own, strict=True)]  # fmt: skip
    fixed = len(own) < len(full) or own[0] == 1
    x = draw(seeds).normal(size=own)
    if not fixed and draw(st.booleans()):
        wanted = wanted[1:]
    return Case("Expand", [x, integers(*wanted)], dynamic=[] if fixed or wanted[:1] != [1] else [0])


@st.composite
def concatenations(draw: st.DrawFn) -> Case:
    """Of one or more values, constants among them."""
    shape, count = draw(shapes(2)), draw(st.integers(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    rng = draw(seeds)
    inputs = []
    for _ in range(count):
        shape[axis] = draw(st.integers(1, 3))
        inputs.append(rng.normal(size=shape))
    active = sorted(draw(st.sets(st.sampled_from(range(count)), min_size=1)))
    dynamic = active if axis > 0 and len(active) == count else []
    attributes = {"axis": from_either_end(draw, axis, len(shape))}
    return Case("Concat", inputs, attributes, active, dynamic)


@st.composite
def splittings(draw: st.DrawFn) -> Case:
    """Some outputs lead nowhere; a `num_outputs` that does not divide leaves a short last part."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    shape = draw(shapes(2))
    axis = draw(st.integers(0, len(shape) - 1))
    shape[axis] = sum(sizes)
    attributes = {"axis": from_either_end(draw, axis, len(shape))}
    inputs = [draw(seeds).normal(size=shape), integers(*sizes)]
    count = len(sizes)
    part = -(-shape[axis] // count)
    if draw(st.booleans()) and (count - 1) * part < shape[axis]:
        inputs = inputs[:1]
        attributes["num_outputs"] = count
    seeded = sorted(draw(st.sets(st.sampled_from(range(count)), min_size=1)))
    dynamic = [0] if axis > 0 else []
    return Case("Split", inputs, attributes, dynamic=dynamic, outputs=count, seeded=seeded)


@st.composite
def slicings(draw: st.DrawFn) -> Case:
    """Several axes from either end, any step, and bounds beyond the ends."""
    x = draw(seeds).normal(size=draw(shapes(2)))
    axes = draw(st.permutations(range(x.ndim)))[: draw(st.integers(1, x.ndim))]
    bounds = st.integers(-7, 7) | st.sampled_from([LAST, FIRST])
    starts, ends, steps = [], [], []
    for axis in axes:
        start = draw(st.integers(-7, 7))
        end = draw(bounds)
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        # Runtimes differ on what these take.
        assume(step > 0 or (start >= -x.shape[axis] and end != LAST))
        if axis == 0 and draw(st.booleans()):
            start, end, step = 0, LAST, 1
        starts, ends, steps = [*starts, start], [*ends, end], [*steps, step]
    whole = all(axis or (s, e, p) == (0, LAST, 1) for axis, s, e, p in zip(
        axes, starts, ends, steps, strict=True))  # fmt: skip
    inputs = [x, integers(*starts), integers(*ends)]
    if list(axes) != list(range(len(axes))) or any(s != 1 for s in steps) or draw(st.booleans()):
        inputs.append(integers(*(from_either_end(draw, axis, x.ndim) for axis in axes)))
        if any(s != 1 for s in steps) or draw(st.booleans()):
            inputs.append(integers(*steps))
    return Case("Slice", inputs, dynamic=[0] if whole else [])


@st.composite
def paddings(draw: st.DrawFn) -> Case:
    x = draw(seeds).normal(size=draw(shapes(2)))
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    axes = list(range(x.ndim))
    if with_axes := draw(st.booleans()):
        axes = draw(st.permutations(axes))[: draw(st.integers(1, x.ndim))]
    sides = []
    for axis in axes:
        n = x.shape[axis]
        before, after = (draw(st.integers(-((n - 1) // 2), 3)) for _ in range(2))
        kept = n + min(before, 0) + min(after, 0)
        most = {"constant": 3, "edge": 3, "reflect": kept - 1, "wrap": kept}[mode]
        sides.append((min(before, most), min(after, most)))
    pads = [before for before, _ in sides] + [after for _, after in sides]
    still = all(p == 0 for axis, p in zip([*axes, *axes], pads, strict=True) if axis == 0)
    inputs: list[np.ndarray | None] = [x, integers(*pads)]
    if with_axes or draw(st.booleans()):
        inputs.append(draw(st.sampled_from([None, np.array(1.5)])))
    if with_axes:
        inputs.append(integers(*(from_either_end(draw, axis, x.ndim) for axis in axes)))
    return Case("Pad", inputs, {"mode": mode}, dynamic=[0] if still else [])


@st.composite
def tilings(draw: st.DrawFn) -> Case:
    x = draw(images())
    repeats = [draw(st.integers(1, 3)) for _ in x.shape]
    return Case("Tile", [x, integers(*repeats)])


@st.composite
def triangles(draw: st.DrawFn) -> Case:
    x = draw(images(2))
    attributes = draw(st.sampled_from([{}, {"upper": 0}, {"upper": 1}]))
    k = [np.array(draw(st.integers(-5, 5)), np.int64)] if draw(st.booleans()) else []
    return Case("Trilu", [x, *k], attributes, dynamic=[0] if x.ndim > 2 else [])


# ----- between channels and pixels -----


@st.composite
def blocks(draw: st.DrawFn, op: str) -> Case:
    b, c = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n, h, w = (draw(st.integers(1, 3)) for _ in range(3))
    if op == "SpaceToDepth":
        return Case(op, [draw(seeds).normal(size=[n, c, h * b, w * b])], {"blocksize": b})
    attributes = draw(st.sampled_from([{}, {"mode": "DCR"}, {"mode": "CRD"}]))
    return Case(op, [draw(seeds).normal(size=[n, c * b * b, h, w])], attributes | {"blocksize": b})


@st.composite
def columns(draw: st.DrawFn) -> Case:
    """Overlapping windows, gaps between them, and rows that no window reaches."""
    axes = draw(st.integers(1, 3))

    def numbers(most: int, least: int = 1) -> list[int]:
        return [draw(st.integers(least, most)) for _ in range(axes)]

    kernel, strides, dilations = numbers(3), numbers(3), numbers(2)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, 1)) for _ in range(2 * axes)]
    size = [r + n for r, n in zip(reach, numbers(3, least=0), strict=True)]
    room = [n + b + a for n, b, a in zip(size, pads[:axes], pads[axes:], strict=True)]
    count = [(n - r) // s + 1 for n, r, s in zip(room, reach, strides, strict=True)]
    shape = [draw(st.integers(1, 2)), 2 * int(np.prod(kernel)), int(np.prod(count))]
    attributes = {"strides": strides, "dilations": dilations, "pads": pads}
    x = draw(seeds).normal(size=shape)
    return Case("Col2Im", [x, integers(*size), integers(*kernel)], attributes)


CASES = {
    "Reshape": reshapes(),
    "Flatten": flattenings(),
    "Squeeze": squeezings("Squeeze"),
    "Unsqueeze": squeezings("Unsqueeze"),
    "Transpose": transpositions(),
    "Expand": expansions(),
    "Concat": concatenations(),
    "Split": splittings(),
    "Slice": slicings(),
    "Pad": paddings(),
    "DepthToSpace": blocks("DepthToSpace"),
    "SpaceToDepth": blocks("SpaceToDepth"),
    "Tile": tilings(),
    "Trilu": triangles(),
    "Col2Im": columns(),
}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(20)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    case = data.draw(CASES[operator])
    # ONNX Runtime gets the dilation of Col2Im right for images alone.
    check_vjp(case, float32=operator != "Col2Im" or len(case.inputs[1]) == 2)


# Particulars


def test_what_a_pad_puts_takes_what_arrives_elsewhere():
    inputs = [np.ones([2, 3]), integers(1, -1, 0, 2), np.array(1.5)]
    check_vjp(Case("Pad", inputs, {}, [0, 2], []))


def test_slices_overlap_nowhere_so_what_was_not_taken_gets_zero():
    x = np.ones([1, 6])
    case = Case("Slice", [x, integers(-1), integers(FIRST), integers(1), integers(-2)])
    g = np.array([[1.0, 2.0, 3.0]])
    assert cotangent_of(case, g).tolist() == [[0, 3, 0, 2, 0, 1]]


def test_an_empty_slice_passes_nothing():
    case = Case("Slice", [np.ones([2, 3]), integers(2), integers(1), integers(1)])
    assert not cotangent_of(case, np.ones([2, 0])).any()


def test_unused_parts_of_a_split_get_zero():
    case = Case("Split", [np.ones([1, 4]), integers(1, 2, 1)], {"axis": 1}, outputs=3, seeded=[1])
    assert cotangent_of(case, np.array([[5.0, 6.0]])).tolist() == [[0, 5, 6, 0]]


def test_reflected_pixels_add_to_their_origin():
    case = Case("Pad", [np.ones([1, 3]), integers(0, 2, 0, 0)], {"mode": "reflect"})
    assert cotangent_of(case, np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])).tolist() == [[3, 6, 6]]


def test_the_value_padded_with_plays_no_part():
    x = np.ones([1, 2])
    one, other = (Case("Pad", [x, integers(0, 1, 0, 1), np.array(value)]) for value in (0.0, 7.0))
    g = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert cotangent_of(one, g).tolist() == cotangent_of(other, g).tolist() == [[2, 3]]


def test_a_size_that_must_be_known_and_is_not_says_what_to_do():
    case = Case("Slice", [np.ones([2, 3]), *map(integers, (-2, FIRST, 0, -1))])
    with pytest.raises(SourceError, match=r"rule of Slice needs a number .*backwards; fix it with"):
        cotangent_of(case, np.ones([2, 3]))


@pytest.mark.parametrize(("start", "end", "step"), [(-10, FIRST, -1), (9, -20, -2), (-9, 3, 2)])
def test_a_slice_clamps_its_bounds_as_pythons_does_not(start, end, step):
    """From before the first, backwards, ONNX takes the first; Python takes nothing."""
    x = np.random.default_rng(0).normal(size=[2, 6])
    case = Case("Slice", [x, *map(integers, (start, end, 1, step))])
    first = min(max(start + 6 if start < 0 else start, 0), 5 if step < 0 else 6)
    expected = np.zeros([2, 6])
    last = -1 if step < 0 else end
    expected[:, list(range(first, last, step))] = 1
    taken = len(range(first, last, step))
    np.testing.assert_array_equal(cotangent_of(case, np.ones([2, taken])), expected)


def test_a_cotangent_becomes_a_scalar_again():
    """Of a mean over everything that is reshaped for what comes behind it."""

    def build(op, x):
        return [op.Reshape(op.ReduceMean(x, keepdims=0), [1, 1])]

    model = forward_model(build, [[2, 3]])
    y = model.graph.outputs[0]
    (found,) = pull_back(builder_of(model), {y: y}, model.graph.inputs, VJPS)
    assert found.shape == ir.Shape([2, 3])
