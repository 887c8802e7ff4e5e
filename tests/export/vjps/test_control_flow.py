"""Control flow that the data decides, beside differences of the source by ONNX Runtime, in float64;
and once more as part of a Hessian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxplain
from onnxplain.errors import NoRuleError

from ..graphs import session
from .check import close

COVERED = ["If", "Loop", "Scan"]

Array = np.ndarray
Feeds = Mapping[str, Any]
RNG = np.random.default_rng(0)
W = RNG.normal(size=[3, 3]) * 0.7
STEP = 1e-5


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape)


def check(folder: Path, text: str, *at: Feeds, **options: Any) -> None:
    """Write a graph of the inputs `text` says, whose constants are W and `one`, and differentiate
    it: ⟨gradient, v⟩ and Hessian products are those of differences, for each of the inputs `at`."""
    source, path = folder / "source.onnx", folder / "differentiated.onnx"
    write(source, text)
    made = onnxplain.differentiate(source, path, of="y", seed="input", second=True, **options)
    onnx.checker.check_model(path, full_check=True)
    before, after = session(source), session(path)
    names = [x.removeprefix("grad.") for x in made.outputs if x.startswith("grad.")]
    gradients, products = ([f"{of}.{x}" for x in names] for of in ("grad", "hvp"))
    for feeds in at:
        seed = normal(*before.run(["y"], feeds)[0].shape)
        along = {x: normal(*np.shape(feeds[x])) for x in names}
        given = {"seed.y": seed, **{f"direction.{x}": v for x, v in along.items()}}

        def moved(session: Any, outputs: Sequence[str], more: Feeds, by: Feeds, up: float) -> Any:
            steps = {x: feeds[x] + up * STEP * v for x, v in by.items()}  # noqa: B023
            return session.run(outputs, {**feeds, **more, **steps})  # noqa: B023

        found = after.run(gradients, {**feeds, **given})
        for x, gradient in zip(names, found, strict=True):
            by = {x: along[x]}
            up, down = (moved(before, ["y"], {}, by, s)[0] for s in (1, -1))
            slope = (seed * (up - down)).sum() / (2 * STEP)
            close((gradient * along[x]).sum(), slope, 1e-6, f"the gradient by {x}")
        ups, downs = (moved(after, gradients, given, along, s) for s in (1, -1))
        hessian = after.run(products, {**feeds, **given})
        for x, product, up, down in zip(names, hessian, ups, downs, strict=True):
            close(product, (up - down) / (2 * STEP), 1e-5, f"the Hessian product by {x}")


def write(path: Path, text: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> {text}')
    constants = {"W": W, "one": np.float64(1), "first": np.array([1])}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    )
    onnx.save(model, path)


# ----- If -----


def test_an_if_whose_branches_read_other_values_and_give_other_shapes(tmp_path: Path) -> None:
    text = """graph (double[N, 3] x, double[N, 3] z) => (double[N, M] y) {
        sum = ReduceSum <keepdims = 0> (x)
        bright = Greater (sum, one)
        h = If (bright) <
            then_branch = a () => (double[N, 3] of_then) {
                inner = MatMul (x, W)
                of_then = Tanh (inner)
            },
            else_branch = b () => (double[N, 2] of_else) {
                inner = Mul (z, x)
                bent = Sin (inner)
                of_else = Slice (bent, first, three, first)
            }>
        y = Mul (h, h)
    }"""
    text = text.replace("{\n", "{ three = Constant <value = int64[1] {3}> ()\n", 1)
    x = 2 + np.abs(normal(2, 3))
    check(tmp_path, text, {"x": x, "z": normal(2, 3)}, {"x": -x, "z": normal(2, 3)})


def test_a_choice_within_a_choice_of_values_of_around(tmp_path: Path) -> None:
    """And a branch that gives what it is given."""
    text = """graph (double[3] x, bool c, bool d) => (double[3] y) {
        e = Exp (x)
        h, k = If (c) <
            then_branch = a () => (double[3] p, double[3] q) {
                p = If (d) <
                    then_branch = aa () => (double[3] r) { r = Mul (e, x) },
                    else_branch = ab () => (double[3] r) { r = Sin (e) }>
                q = Identity (x)
            },
            else_branch = b () => (double[3] s, double[3] t) { s, t = If (d) <
                    then_branch = ba () => (double[3] u, double[3] v) {
                        u = Tanh (x)
                        v = Mul (u, e)
                    },
                    else_branch = bb () => (double[3] u, double[3] v) {
                        u = Identity (e)
                        v = Identity (e)
                    }>
            }>
        y = Mul (h, k)
    }"""
    x = normal(3)
    check(
        tmp_path,
        text,
        *(
            {"x": x, "c": np.array(c), "d": np.array(d)}
            for c in (True, False)
            for d in (True, False)
        ),
    )


# ----- Scan -----


@pytest.mark.parametrize(("axis", "back"), [(0, 0), (1, 1), (-2, 0)])
def test_a_scan_of_several_axes_and_directions(axis: int, back: int, tmp_path: Path) -> None:
    """Of as many rounds as the input is long, with two states, by all that it reads."""
    shape = "T, N, 3" if axis == 0 else "N, T, 3"
    text = f"""graph (double[N, 3] a, double[{shape}] xs, double[3] z, double[T] r)
        => (double[N, 3] y) {{
        other = Identity (z)
        last, count, more, most = Scan <
            num_scan_inputs = 2,
            scan_input_axes = [{axis}, 0],
            scan_input_directions = [{back}, {1 - back}],
            scan_output_axes = [0, -1],
            scan_output_directions = [{1 - back}, {back}],
            body = b (double[N, 3] s, double[3] k, double[N, 3] x, double f)
                => (double[N, 3] s_next, double[3] k_next, double[N, 3] p, double[N, 3] q) {{
                sw = MatMul (s, W)
                added = Add (sw, x)
                times = Mul (added, z)
                s_next = Tanh (times)
                kf = Mul (k, f)
                k_next = Add (kf, one)
                p = Mul (s_next, x)
                q = Mul (s, k)
            }}> (a, other, xs, r)
        p_sum = ReduceSum <keepdims = 0> (more)
        q_sum = ReduceSum <keepdims = 0> (most)
        e = Exp (last)
        pq = Mul (p_sum, q_sum)
        epq = Mul (e, pq)
        y = Mul (epq, count)
    }}"""
    for length in (1, 4):
        xs = normal(length, 2, 3)
        given = {"a": normal(2, 3), "xs": xs if axis == 0 else xs.swapaxes(0, 1), "z": normal(3)}
        check(tmp_path, text, {**given, "r": normal(length)})


def test_a_scan_by_a_weight_that_it_reads(tmp_path: Path) -> None:
    """d/dW Σ tanh(x W) tanh(…): the weight is read in every round, and before."""
    source, path = tmp_path / "source.onnx", tmp_path / "differentiated.onnx"
    text = """graph (double[T, 3] x) => (double[3] y) {
        start = ReduceSum <keepdims = 0> (W, axis)
        y = Scan <num_scan_inputs = 1, body = b (double[3] s, double[3] x_t) => (double[3] t) {
            sum = Add (s, x_t)
            product = MatMul (sum, W)
            t = Tanh (product)
        }> (start, x)
    }"""
    write(source, text.replace("{\n", "{ axis = Constant <value = int64[1] {0}> ()\n", 1))
    onnxplain.differentiate(source, path, wrt=["W", "x"])
    torch = pytest.importorskip("torch")
    x = torch.tensor(normal(5, 3), requires_grad=True)
    weight = torch.tensor(W, requires_grad=True)
    state = weight.sum(0)
    for each in x:
        state = torch.tanh((state + each) @ weight)
    expected = torch.autograd.grad(state.sum(), [weight, x])
    found = session(path).run(["grad.W", "grad.x"], {"x": x.detach().numpy()})
    for array, gradient in zip(found, expected, strict=True):
        close(array, gradient.numpy(), 1e-12, "the gradient")


@pytest.mark.parametrize("ways", ["[0, 1]", "[0, 0]"])
def test_a_scan_that_takes_a_value_twice(ways: str, tmp_path: Path) -> None:
    """Each round multiplies what two ends of it hold."""
    text = f"""graph (double[3] s0, double[T, 3] x) => (double[3] y) {{
        y = Scan <num_scan_inputs = 2, scan_input_directions = {ways},
            body = b (double[3] s, double[3] p, double[3] q) => (double[3] t) {{
                bent = Sin (p)
                product = Mul (bent, q)
                sum = Add (s, product)
                t = Tanh (sum)
            }}> (s0, x, x)
    }}"""
    check(tmp_path, text, {"s0": normal(3), "x": normal(4, 3)})


def test_a_scan_that_reads_as_a_whole_what_it_takes_parts_of(tmp_path: Path) -> None:
    """Each step attends to the sequence."""
    text = """graph (double[3] s0, double[T, 3] x) => (double[3] y) {
        y = Scan <num_scan_inputs = 1, body = b (double[3] s, double[3] x_t) => (double[3] t) {
            scores = MatMul (x, s)
            weights = Softmax (scores)
            context = MatMul (weights, x)
            product = Mul (context, x_t)
            sum = Add (s, product)
            t = Tanh (sum)
        }> (s0, x)
    }"""
    check(tmp_path, text, {"s0": normal(3), "x": normal(4, 3)})


# ----- Loop -----


def test_a_loop_of_rounds_that_an_input_says_and_the_data_ends(tmp_path: Path) -> None:
    """Also of none. Its states are floats and whole numbers; it stacks what it makes."""
    text = """graph (double[N, 3] x, double[3] z, int64 rounds) => (double[N, 3] y) {
        none = Constant <value = int64 {0}> ()
        yes = Constant <value = bool {1}> ()
        last, count, stack = Loop (rounds, yes, x, none) <
            body = b (int64 i, bool going, double[N, 3] s, int64 k)
                => (bool on, double[N, 3] s_next, int64 k_next, double[N, 3] made) {
                number = Cast <to = 11> (k)
                above = Add (number, one)
                product = MatMul (s, W)
                scaled = Mul (product, above)
                by_z = Mul (scaled, z)
                s_next = Tanh (by_z)
                two = Constant <value = int64 {2}> ()
                k_next = Add (k, two)
                made = Sin (s_next)
                top = ReduceMax <keepdims = 0> (s_next)
                on = Less (top, one)
            }>
        sum = ReduceSum <keepdims = 0> (stack)
        e = Exp (last)
        y = Mul (e, sum)
    }"""
    given = {"x": normal(2, 3), "z": normal(3)}
    check(tmp_path, text, *({**given, "rounds": np.array(n)} for n in (4, 1, 0)))


def test_a_loop_until_the_data_says_so(tmp_path: Path) -> None:
    """Newton's square root: x ← (x + a / x) / 2 until it stays; nothing says how often."""
    text = """graph (double a) => (double y) {
        most = Constant <value = int64 {1000}> ()
        far = Greater (a, tiny)
        y = Loop (most, far, a) <
            body = b (int64 i, bool going, double x) => (bool on, double next) {
                quotient = Div (a, x)
                sum = Add (x, quotient)
                next = Mul (sum, half)
                change = Sub (next, x)
                size = Abs (change)
                on = Greater (size, tiny)
            }>
    }"""
    numbers = (
        "tiny = Constant <value = double {1e-12}> () half = Constant <value = double {0.5}> ()"
    )
    source, path = tmp_path / "source.onnx", tmp_path / "differentiated.onnx"
    write(source, text.replace("{\n", "{" + numbers + "\n", 1))
    onnxplain.differentiate(source, path, second=True)
    for a in (2.0, 9.0):
        given = {"a": np.array(a), "direction.a": np.array(1.0)}
        found = session(path).run(["y", "grad.a", "hvp.a"], given)
        expected = [a**0.5, 0.5 * a**-0.5, -0.25 * a**-1.5]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_loop_of_which_only_the_rounds_depend_on_an_input_is_taped_for_nothing(
    tmp_path: Path,
) -> None:
    """No cotangent goes through how often it runs, nor through a condition."""
    text = """graph (double x, double z, int64 n) => (double y) {
        high = Greater (x, one)
        h = Loop (n, high, z) <
            body = b (int64 i, bool going, double s) => (bool on, double t) {
                on = Identity (going)
                t = Sin (s)
            }>
        k = If (high) <then_branch = p () => (double u) { u = Exp (z) },
            else_branch = q () => (double u) { u = Cos (z) }>
        hk = Mul (h, k)
        y = Mul (hk, x)
    }"""
    source, path = tmp_path / "source.onnx", tmp_path / "differentiated.onnx"
    write(source, text)
    onnxplain.differentiate(source, path, wrt="x")
    flows = [node for node in onnx.load(path).graph.node if node.op_type in COVERED]
    assert sorted((node.op_type, len(node.output)) for node in flows) == [("If", 1), ("Loop", 1)]
    given = {"x": np.array(2.0), "z": np.array(0.3), "n": np.array(2)}
    (found,) = session(path).run(["grad.x"], given)
    close(found, np.sin(np.sin(0.3)) * np.exp(0.3), 1e-12, "the gradient")


def test_a_loop_in_a_loop_with_a_choice_in_it(tmp_path: Path) -> None:
    """Each reads values of all that is around it, and names are used twice."""
    text = """graph (double[3] x, double[3] z, int64 n, int64 m) => (double[3] y) {
        e = Exp (x)
        y = Loop (n, , x) <
            body = outer (int64 i, bool c, double[3] s) => (bool d, double[3] out) {
                d = Identity (c)
                es = Mul (e, s)
                t = Loop (m, , es) <
                    body = inner (int64 i2, bool c2, double[3] u) => (bool d2, double[3] out2) {
                        d2 = Identity (c2)
                        sum = ReduceSum <keepdims = 0> (u)
                        high = Greater (sum, one)
                        h = If (high) <
                            then_branch = p () => (double[3] r) {
                                a = Mul (u, z)
                                r = Sin (a)
                            },
                            else_branch = q () => (double[3] r) {
                                a = Add (s, u)
                                r = Mul (a, e)
                            }>
                        out2 = Tanh (h)
                    }>
                out = Add (t, s)
            }>
    }"""
    given = {"x": normal(3), "z": normal(3)}
    check(
        tmp_path,
        text,
        *({**given, "n": np.array(n), "m": np.array(m)} for n, m in [(2, 3), (3, 0)]),
    )


def test_a_loop_whose_state_grows_is_named(tmp_path: Path) -> None:
    text = """graph (double[2] x, int64 n) => (double[M] y) {
        y = Loop (n, , x) <
            body = b (int64 i, bool c, double[K] s) => (bool d, double[L] t) {
                d = Identity (c)
                both = Concat <axis = 0> (s, s)
                t = Sin (both)
            }>
    }"""
    write(tmp_path / "source.onnx", text)
    with pytest.raises(NoRuleError, match=r"Loop .*, \[2\] at first, may have another shape"):
        onnxplain.differentiate(tmp_path / "source.onnx", tmp_path / "d.onnx")


# ----- Jacobians -----

LOOP = """Loop (n, , x) <
    body = b (int64 i, bool c, double[3] s) => (bool d, double[3] t, double[3] made) {
        d = Identity (c)
        p = MatMul (s, W)
        z = Mul (p, x)
        t = Tanh (z)
        made = Mul (t, s)
    }>"""
SCAN = """Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
    body = b (double[3] s, double[3] x_t) => (double[3] t, double[3] made) {
        p = MatMul (s, W)
        z = Mul (p, x_t)
        t = Tanh (z)
        made = Mul (t, x)
    }> (x, many)"""
IF = """If (c) <
    then_branch = a () => (double[3] s, double[1, 3] t) {
        s = MatMul (x, W)
        t = Unsqueeze (s, none)
    },
    else_branch = b () => (double[3] s, double[1, 3] t) {
        s = Exp (x)
        q = Sin (s)
        t = Unsqueeze (q, none)
    }>"""


@pytest.mark.parametrize("flow", [LOOP, SCAN, IF], ids=["Loop", "Scan", "If"])
def test_a_jacobian_goes_through_it_for_all_rows_at_once(flow: str, tmp_path: Path) -> None:
    source, path = tmp_path / "source.onnx", tmp_path / "differentiated.onnx"
    axis = 1 if flow is SCAN else 0
    text = f"""graph (double[3] x, int64 n, bool c) => (double[3] y) {{
        none = Constant <value = int64[1] {{0}}> ()
        axis = Constant <value = int64[1] {{{axis}}}> ()
        column = Unsqueeze (x, first)
        row = Unsqueeze (n, none)
        three = Constant <value = int64[1] {{3}}> ()
        size = Concat <axis = 0> (three, row)
        many = Expand (column, size)
        last, stack = {flow}
        sum = ReduceSum <keepdims = 0> (stack, axis)
        y = Mul (last, sum)
    }}"""
    write(source, text)
    onnxplain.differentiate(source, path, wrt="x", jacobian=True)
    before, after = session(source), session(path)
    x = normal(3)
    for n, c in ((3, True), (1, False)):
        others = {"n": np.array(n), "c": np.array(c)}
        others = {
            name.name: others[name.name] for name in before.get_inputs() if name.name in others
        }
        columns = []
        for i in range(3):
            v = STEP * np.eye(3)[i]
            up, down = (before.run(["y"], {"x": x + s * v, **others})[0] for s in (1, -1))
            columns.append((up - down) / (2 * STEP))
        (found,) = after.run(["jacobian.y.x"], {"x": x, **others})
        close(found, np.stack(columns, 1), 1e-6, "the Jacobian")
