"""Open sizes: what a network decides by them, and operands of which one turns out to be 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxplain

Array = np.ndarray


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def differentiated(text: str, folder: Path, **feeds: Array) -> tuple[dict[str, Array], Array]:
    """The outputs of the derivatives' file, and the only one of the network's own."""
    source, path = folder / "net.onnx", folder / "net.derivatives.onnx"
    head = '<ir_version: 9, opset_import: ["": 20]>'
    onnx.save(onnx.parser.parse_model(f"{head} network {text}"), source)
    onnxplain.differentiate(source, path)
    run = session(path)
    names = [y.name for y in run.get_outputs()]
    (own,) = session(source).run(None, feeds)
    return dict(zip(names, run.run(None, feeds), strict=True)), own


DECIDED = {
    "a half": ("Div (n, two)", lambda n: n // 2),
    "at most two": ("Min (n, two)", lambda n: min(n, 2)),
    "a rest": ("Mod (n, two)", lambda n: n % 2),
    "more than one": ("Greater (n, one)", lambda n: n > 1),
    "just one": ("Equal (n, one)", lambda n: n == 1),
    "more than two": ("Greater (n, two)", lambda n: n > 2),
}


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("name", DECIDED)
def test_what_is_decided_by_an_open_size_is_decided_anew(
    name: str, batch: int, tmp_path: Path
) -> None:
    node, number = DECIDED[name]
    text = f"""(double[N, 2] x) => (double[N, 2] y) <int64[1] one = {{1}}, int64[1] two = {{2}}> {{
        n = Shape <end = 1> (x)
        decided = {node}
        factor = Cast <to = 11> (decided)
        square = Mul (x, x)
        y = Mul (square, factor)
    }}"""
    x = np.random.default_rng(0).normal(size=(batch, 2))
    found, y = differentiated(text, tmp_path, x=x)
    np.testing.assert_allclose(found["y"], y)
    np.testing.assert_allclose(found["grad.x"], 2 * x * number(batch))


STRETCHED = {
    "Mul": ("Mul (a, b)", (1, 2), (3, 2)),
    "Mul, the other": ("Mul (a, b)", (3, 2), (1, 2)),
    "Mul, neither": ("Mul (a, b)", (3, 2), (3, 2)),
    "MatMul": ("MatMul (a, b)", (1, 2, 2), (3, 2, 2)),
    "Einsum": ('Einsum <equation = "ij,ij->i"> (a, b)', (1, 2), (3, 2)),
}


@pytest.mark.parametrize("name", STRETCHED)
def test_an_operand_that_turns_out_to_be_one_is_summed(name: str, tmp_path: Path) -> None:
    node, *shapes = STRETCHED[name]
    inner = ", 2" * (len(shapes[0]) - 1)
    text = f"""(double[N{inner}] a, double[M{inner}] b) => (double[] y) {{ y = {node} }}"""
    random = np.random.default_rng(0)
    a, b = (random.normal(size=shape) for shape in shapes)
    found, _ = differentiated(text, tmp_path, a=a, b=b)
    full = np.ones(np.broadcast_shapes(*shapes))
    of_a, of_b = full * b, full * a
    if name == "MatMul":
        of_a, of_b = full @ np.swapaxes(b, 1, 2), np.swapaxes(a, 1, 2) @ full
    for gradient, expected, x in (("grad.a", of_a, a), ("grad.b", of_b, b)):
        expected = expected.sum(0, keepdims=True) if len(x) == 1 else expected
        np.testing.assert_allclose(found[gradient], expected, err_msg=gradient)


def test_the_second_derivative_of_a_stretched_operand(tmp_path: Path) -> None:
    """y = a² b, summed: the product with (v, w) is 2 (b v + a w) for a, and 2 a v for b."""
    text = "(double[N, 2] a, double[M, 2] b) => (double[] y) { c = Mul (a, a) y = Mul (c, b) }"
    head = '<ir_version: 9, opset_import: ["": 20]>'
    onnx.save(onnx.parser.parse_model(f"{head} network {text}"), tmp_path / "net.onnx")
    onnxplain.differentiate(tmp_path / "net.onnx", tmp_path / "second.onnx", second=True)
    random = np.random.default_rng(0)
    a, v, b, w = (random.normal(size=(n, 2)) for n in (1, 1, 3, 3))
    feeds = {"a": a, "b": b, "direction.a": v, "direction.b": w}
    of_a, of_b = session(tmp_path / "second.onnx").run(["hvp.a", "hvp.b"], feeds)
    np.testing.assert_allclose(of_a, 2 * (b * v + a * w).sum(0, keepdims=True))
    np.testing.assert_allclose(of_b, np.broadcast_to(2 * a * v, (3, 2)))
