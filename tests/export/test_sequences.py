"""Sequences of tensors: their derivatives beside PyTorch's, and what has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor

import onnxplain
from onnxplain.errors import NoRuleError, SourceError

Function = Callable[[Tensor, Tensor], Tensor]

HEAD = '<ir_version: 9, opset_import: ["": 20]>\n'
A = "float[2, 3] a"
PLACES = "int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 last = {-1}"

SEQUENCES: dict[str, tuple[str, Function]] = {
    "erased, at a place and at the end": (
        """s = SequenceConstruct(a, x, b, a)
        without = SequenceErase(s, zero)
        rest = SequenceErase(without)
        first = SequenceAt(rest, zero)
        second = SequenceAt(rest, last)
        y = Mul(first, second)""",
        lambda a, b: torch.sin(a) * b,
    ),
    "from nothing, inserted at the end, at the front and before the last": (
        """none = SequenceEmpty()
        s1 = SequenceInsert(none, x)
        s2 = SequenceInsert(s1, a, zero)
        s3 = SequenceInsert(s2, b, last)
        y = ConcatFromSequence<axis = 1>(s3)""",
        lambda a, b: torch.cat([a, b, torch.sin(a)], 1),
    ),
    "stacked along a new axis": (
        "s = SequenceConstruct(a, b)\n y = ConcatFromSequence<axis = -1, new_axis = 1>(s)",
        lambda a, b: torch.stack([a, b], -1),
    ),
    "split into pieces, the last of which is smaller": (
        """s = SplitToSequence<axis = 1>(a, two)
        p = SequenceAt(s, one)
        q = SequenceAt(s, zero)
        y = Concat<axis = 1>(q, p)""",
        lambda a, b: torch.cat([a[:, :2], a[:, 2:]], 1),
    ),
    "split into slices without their axis": (
        """s = SplitToSequence<axis = 0, keepdims = 0>(a)
        p = SequenceAt(s, one)
        y = Mul(p, b)""",
        lambda a, b: a[1] * b,
    ),
    "mapped, with a tensor for all and another sequence": (
        """s = SequenceConstruct(a, b)
        t = SequenceConstruct(b, x)
        m = SequenceMap<body = f (float[2, 3] p, float[2, 3] q, float[2, 3] c) => (float[2, 3] r) {
            pq = Mul(p, q)
            r = Add(pq, c)
        }>(s, t, a)
        y = ConcatFromSequence<axis = 0>(m)""",
        lambda a, b: torch.cat([a * b + a, b * torch.sin(a) + a]),
    ),
    "mapped twice, by bodies that call what they make the same": (
        """s = SequenceConstruct(a, b)
        m = SequenceMap<body = f (float[2, 3] p) => (float[2, 3] r) <float by = {2.0}> {
            q = Mul(p, by)
            r = Sin(q)
        }>(s)
        n = SequenceMap<body = f (float[2, 3] p) => (float[2, 3] r) <float by = {3.0}> {
            q = Mul(p, by)
            r = Sin(q)
        }>(m)
        y = ConcatFromSequence<axis = 0>(n)""",
        lambda a, b: torch.sin(3 * torch.sin(2 * torch.cat([a, b]))),
    ),
    "gathered by a loop of as many rounds as a sequence is long": (
        """s = SequenceConstruct(a, b, x)
        n = SequenceLength(s)
        none = SequenceEmpty()
        so = Cast<to = 9>(one)
        all = Loop(n, so, none) <body = f (int64 i, bool c, seq(float[2, 3]) held)
            => (bool go, seq(float[2, 3]) more) {
            go = Identity(c)
            e = SequenceAt(s, i)
            double = Add(e, e)
            more = SequenceInsert(held, double)
        }>
        y = ConcatFromSequence<axis = 0>(all)""",
        lambda a, b: 2 * torch.cat([a, b, torch.sin(a)]),
    ),
    "as long as it is": (
        """s = SequenceConstruct(a, b)
        n = SequenceLength(s)
        f = Cast<to = 1>(n)
        y = Mul(f, a)""",
        lambda a, b: 2 * a,
    ),
}


def model(text: str, inputs: str = "float[2, 3] a, float[2, 3] b") -> onnx.ModelProto:
    """x is sin(a)."""
    parsed = onnx.parser.parse_model(
        f"{HEAD} g ({inputs}) => (float y) <{PLACES}> {{ x = Sin(a)\n {text} }}"
    )
    parsed.graph.output[0].type.tensor_type.ClearField("shape")
    return parsed


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_tensors_of_a_sequence_have_their_gradients(name: str, tmp_path: Path) -> None:
    text, function = SEQUENCES[name]
    onnx.save(model(text), tmp_path / "m.onnx")
    made = onnxplain.differentiate(tmp_path / "m.onnx", tmp_path / "d.onnx", seed="input")
    assert made.notes == ()  # the outputs are those of the source in ONNX Runtime
    random = np.random.default_rng(0)
    a, b = (torch.from_numpy(random.normal(size=(2, 3)).astype("f")) for _ in range(2))
    y, pull = torch.func.vjp(function, a, b)
    g = torch.from_numpy(random.normal(size=y.shape).astype("f"))
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx")
    feeds = {"a": a.numpy(), "b": b.numpy(), "seed.y": g.numpy()}
    names = [value.name for value in session.get_outputs()]
    given = {x.name: feeds[x.name] for x in session.get_inputs()}
    found = dict(zip(names, session.run(None, given), strict=True))
    np.testing.assert_allclose(found["y"], y, rtol=1e-6)
    for own, expected in zip("ab", pull(g), strict=True):
        np.testing.assert_allclose(found.get(f"grad.{own}", 0 * b), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("s = SplitToSequence<axis = 0>(a, two)\n y = SequenceAt(s, one)", "float[N, 3] a"),
        ("s = SequenceConstruct(a, x)\n y = SequenceAt(s, i)", "float[2, 3] a, int64 i"),
        # What there is not: the third of two, the last of none, parts of no rows.
        ("s = SequenceConstruct(a, x)\n e = SequenceErase(s, two)\n y = SequenceAt(e, zero)", A),
        (
            "n = SequenceEmpty()\n e = SequenceErase(n)\n s = SequenceInsert(e, x)\n"
            "y = SequenceAt(s, zero)",
            A,
        ),
        ("s = SplitToSequence<axis = 0>(a, zero)\n y = SequenceAt(s, zero)", A),
    ],
)
def test_a_sequence_that_only_the_input_decides_is_named(
    text: str, inputs: str, tmp_path: Path
) -> None:
    onnx.save(model(text, inputs), tmp_path / "m.onnx")
    with pytest.raises(NoRuleError, match="is not a constant of the network; fix the size"):
        onnxplain.differentiate(tmp_path / "m.onnx", tmp_path / "d.onnx")


def test_by_a_sequence_as_a_whole_there_is_no_gradient(tmp_path: Path) -> None:
    text = "e = SequenceAt(s, one)\n y = Mul(e, x)"
    onnx.save(model(text, "seq(float[2, 3]) s, float[2, 3] a"), tmp_path / "m.onnx")
    said = r"'s' .* is a sequence, no tensor, and has no derivative; e, made of it, has"
    with pytest.raises(SourceError, match=said):
        onnxplain.differentiate(tmp_path / "m.onnx", tmp_path / "d.onnx", wrt="s")
    for wrt in ("a", None):
        made = onnxplain.differentiate(tmp_path / "m.onnx", tmp_path / "d.onnx", wrt=wrt)
        assert made.wrt == ("a",)
