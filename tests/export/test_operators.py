"""The table of operators: one row each, which is true and all that there is to write."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxplain
from onnxplain.contract.precision import OperatorPrecision
from onnxplain.errors import NoRuleError
from onnxplain.export import VJPS, backward, register_vjp
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.check import Case, finished
from onnxplain.export.operators import OPERATORS, Kind, Linear, Operator, by_name, row_of
from onnxplain.export.vmap import BATCHING
from onnxplain.reference.float64 import evaluator
from onnxplain.vital.graphs.receptive import receptive_field

from .graphs import explain, head, images, node, write
from .vjps.check import drawn
from .vjps.test_table import KINDS

ROOT = Path(__file__).parents[2]

# ----- one place for each name -----

NAMED_ELSEWHERE = {
    "autodiff.py": "operators that give a shape or a scale, through which nothing flows",
    "canonical/contrib.py": "ONNX Runtime's operators, spelled with standard ones",
    "canonical/ends.py": "what classifiers end in",
    "canonical/evaluate.py": "operators whose result is larger than their operands: budgets",
    "canonical/integers.py": "operators that compute with integers, spelled in floats",
    "canonical/misread.py": "operators whose sizes ONNX's inference misreads",
    "canonical/opsets.py": "operators that older opsets defined otherwise",
    "canonical/pools.py": "pools, whose windows ONNX counts otherwise than runtimes",
    "canonical/quantisers.py": "what quantises, and what makes floats of it again",
    "canonical/samples.py": "operators that keep samples apart in their own way",
    "canonical/spelled": "operators that are spelled in others",
    "canonical/patterns": "what is recognised, and what it becomes",
    "composites.py": "the definitions of the composites",
    "describe.py": "what is linear in some of its operands alone",
    "explained.py": "what stands between a table of embeddings and its reader",
    "lower.py": "measured forms of single operators",
    "methods/baselines.py": "the methods' definitions: ReLU and ReLU6 alone",
    "methods/excitation.py": "the method's definition: ReLU, ReLU6 and MaxPool alone",
    "methods/semantic.py": "the method's formulas for single operators",
    "methods/transformer_lrp.py": "the methods' formulas for single operators",
    "objectives/reading.py": "what outputs end in",
    "objectives/structure.py": "what outputs end in, and what boxes are made of",
    "stretched.py": "operators that stretch an operand of one element",
    "subgraphs.py": "operators that have bodies",
    "vjps": "the rows; the activations that recurrent layers name",
}
"""Files and folders of `export` in which collections may hold names of operators, and why."""


def collections_of_names(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The lists, tuples, sets and dictionaries of a file that name operators, with their lines."""
    for part in ast.walk(ast.parse(file.read_text("utf-8"))):
        elements: list[ast.expr | None] = []
        if isinstance(part, ast.List | ast.Tuple | ast.Set):
            elements = [*part.elts]
        elif isinstance(part, ast.Dict):
            elements = [*part.keys, *part.values]
        values = [e.value for e in elements if isinstance(e, ast.Constant)]
        if names := [v for v in values if isinstance(v, str) and v in OPERATORS]:
            yield part.lineno, names


def test_no_file_keeps_a_list_of_operators_beside_the_table() -> None:
    found = {}
    for file in sorted((ROOT / "export").rglob("*.py")):
        inner = file.relative_to(ROOT / "export")
        if not {str(inner), *map(str, inner.parents)} & NAMED_ELSEWHERE.keys():
            found |= {f"{inner}:{line}": names for line, names in collections_of_names(file)}
    assert found == {}


def test_what_may_name_operators_is_there_and_does() -> None:
    for place in NAMED_ELSEWHERE:
        path = ROOT / "export" / place
        files = [path] if path.suffix else path.rglob("*.py")
        assert any(names for file in files for names in collections_of_names(file)), place


@pytest.mark.parametrize("operator", ["Acos", "AffineGrid", "ReduceLogSum", "Softsign"])
def test_one_file_names_an_operator_that_no_method_has_a_formula_for(operator: str) -> None:
    folders = ("export", "runtime", "kernels", "bench", "onnxplain")
    files = [file.resolve() for folder in folders for file in (ROOT / folder).rglob("*.py")]
    judged = {ROOT / "bench" / "node_tests", ROOT / "bench" / "random_graphs"}  # tests, by hand
    product = {file for file in files if not judged & set(file.parents)}
    naming = {file for file in product if f'"{operator}"' in file.read_text("utf-8")}
    assert [file.parent.name for file in naming] == ["vjps"]


# ----- a row is all that an operator needs -----


def two_rectifiers(path: Path, operator: str, batch: int | str) -> tuple[Path, Path]:
    """A network with that operator, and one with its formula spelled by Relu, Min and Exp."""
    weights = {"w": images(4, 3, 3, 3), "v": images(4, 4, 3, 3, seed=1)}
    last, more = head("b", 4 * 4 * 4)
    first, second = ("conv", "a"), ("conv2", "b")
    convolutions = [
        node("Conv", ["x", "w"], ["conv"]),
        node("Conv", ["a", "v"], ["conv2"], name="second"),
    ]
    plain = [node(operator, [x], [y]) for x, y in (first, second)]
    spelled = [
        made
        for x, y in (first, second)
        for made in (
            node("Relu", [x], [f"{x}_up"]),
            node("Min", [x, "zero"], [f"{x}_low"]),
            node("Exp", [f"{x}_low"], [f"{x}_e"]),
            node("Sub", [f"{x}_e", "one"], [f"{x}_down"]),
            node("Add", [f"{x}_up", f"{x}_down"], [y]),
        )
    ]
    numbers = {"zero": np.float32(0), "one": np.float32(1)}
    both = []
    for name, between in (("plain", plain), ("spelled", spelled)):
        k = len(between) // 2
        nodes = [convolutions[0], *between[:k], convolutions[1], *between[k:], *last]
        file = path / f"{name}.onnx"
        both.append(write(file, nodes, weights | more | numbers, shape=(batch, 3, 8, 8)))
    return both[0], both[1]


@pytest.fixture
def celu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row taken away and written again: all that whoever adds an operator does."""
    monkeypatch.setitem(OPERATORS, "Celu", Operator())

    @register_vjp("Celu", kind=Kind.RECTIFIER)
    def rule(op, node, g):
        below = op.Mul(g, op.Add(node.outputs[0], 1.0))  # with alpha = 1
        return op.Where(op.Greater(node.inputs[0], 0.0), g, below)


def test_without_its_row_an_operator_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(OPERATORS, "Celu", Operator())
    plain, _ = two_rectifiers(tmp_path, "Celu", "N")
    for method in ("gradient", "lrp-zplus"):
        with pytest.raises(NoRuleError, match="Celu"):
            onnxplain.export(plain, tmp_path / "explain.onnx", method=method)


@pytest.mark.usefixtures("celu")
def test_a_rectifier_by_its_row_has_its_gradient_for_several_targets(tmp_path: Path) -> None:
    plain, spelled = two_rectifiers(tmp_path, "Celu", 1)  # a fixed batch, which its axes free
    x = images(2, 3, 8, 8, seed=2)
    expected = explain(spelled, x, target=[[0, 3], [2, 1]], multi_target=True)
    found = explain(plain, x, target=[[0, 3], [2, 1]], multi_target=True)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-4, atol=1e-6)
    assert np.abs(found.pullback).max() > 0.01


@pytest.mark.usefixtures("celu")
def test_a_rectifier_by_its_row_has_the_gate_of_relu_in_semantic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one such layer, g · Φ(z/T): the gradient of x · gate, the gate held constant."""
    monkeypatch.setattr(backward, "fold_temperatures", lambda *_: None)  # of ReLU alone
    weights = {"w": images(4, 3, 3, 3)}
    last, more = head("a", 4 * 6 * 6)
    x = images(2, 3, 8, 8, seed=2)
    pullbacks = []
    for operator in ("Celu", "Relu"):
        nodes = [node("Conv", ["x", "w"], ["z"]), node(operator, ["z"], ["a"]), *last]
        path = write(tmp_path / f"{operator}.onnx", nodes, weights | more)
        pullbacks.append(explain(path, x, "semantic").pullback)
    np.testing.assert_array_equal(*pullbacks)


@pytest.mark.usefixtures("celu")
def test_a_rectifier_by_its_row_passes_relevance_on(tmp_path: Path) -> None:
    plain, _ = two_rectifiers(tmp_path, "Celu", "N")
    found = explain(plain, images(2, 3, 8, 8, seed=2), "lrp-zplus").pullback
    np.testing.assert_allclose(found.sum((1, 2, 3)), 1, atol=1e-3)


@pytest.mark.usefixtures("celu")
def test_a_rectifier_by_its_row_follows_its_neighbours_to_float32_and_sees_single_positions(
    tmp_path: Path,
) -> None:
    plain, _ = two_rectifiers(tmp_path, "Celu", "N")
    onnxplain.export(plain, tmp_path / "explain.onnx")
    props = {p.key: p.value for p in onnx.load(tmp_path / "explain.onnx").metadata_props}
    precision = OperatorPrecision.from_props(props)
    assert precision is not None
    assert "Celu" in precision.follow
    graph = canonicalise(ir.load(plain)).model.graph
    (layer,) = (y for n in graph for y in n.outputs if y.name == "b")
    spans = receptive_field(graph, layer)
    assert spans is not None
    assert [(s.stride, s.first, s.last) for s in spans] == [(1, 0, 4)] * 2


def test_an_operator_from_outside_may_bring_a_batching_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OPERATORS, "my.domain::Odd", Operator())

    def rule(op, node, g):
        return g

    def batched(op, node, inputs, mapped, K):
        return inputs[0]

    register_vjp("my.domain::Odd", batching=batched)(rule)
    row = row_of("my.domain::Odd")
    assert (row.vjp, row.kind, row.batching) == (rule, Kind.OTHER, batched)
    assert row.axes not in BATCHING


def test_rules_for_a_kind_give_way_to_those_for_an_operator() -> None:
    def of_kind(op, node, g):
        return g

    def of_selu(op, node, g):
        return op.Neg(g)

    rules = by_name({Kind.RECTIFIER: of_kind, "Selu": of_selu, "my.domain::New": of_selu})
    assert rules["Elu"] is of_kind
    assert rules["Selu"] is of_selu
    assert rules["my.domain::New"] is of_selu
    assert "Sigmoid" not in rules


# ----- what the rows say is true -----

CASES = {operator: case for kind in KINDS for operator, case in getattr(kind, "CASES", {}).items()}
SIGNED = [name for name in CASES if row_of(name).sign.__name__ != "any_sign"]
LINEAR = [name for name in CASES if row_of(name).linear is not Linear.NONE]


def forward_of(case: Case):
    """The operator's node, and its function of the active inputs, in float64."""
    model = case.forward_model()
    made = model.graph.outputs[0].producer()
    inputs = list(model.graph.inputs)
    run = evaluator(finished(model)).run
    return made, inputs, lambda *xs: run(None, {f"x{i}": x for i, x in enumerate(xs)})[0]


@pytest.mark.parametrize("operator", SIGNED)
@drawn(5)
@given(data=st.data())
def test_an_operator_said_not_to_make_negative_numbers_makes_none(
    operator: str, data: st.DataObject
) -> None:
    case = data.draw(CASES[operator])
    made, inputs, f = forward_of(case)
    required = row_of(operator).sign(made)
    if required is None:
        return
    for value in required:
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if constant is not None and (constant.numpy() < 0).any():
            return
    xs = [
        np.abs(x) if value in required else x
        for x, value in zip(case.arrays(), inputs, strict=True)
    ]
    assert np.nanmin(f(*xs), initial=0) >= 0


@pytest.mark.parametrize("operator", LINEAR)
@drawn(5)
@given(data=st.data())
def test_an_operator_said_to_be_linear_has_no_curvature(operator: str, data: st.DataObject) -> None:
    """f(x + v) + f(x − v) = 2 f(x) for each input, or all together, as its row has it."""
    case = data.draw(CASES[operator])
    _, _, f = forward_of(case)
    xs = case.arrays()
    linear = row_of(operator).linear
    moving = {
        Linear.FIRST: [{0}],
        Linear.TOGETHER: [set(case.active)],
        Linear.EACH: [{i} for i in case.active],
    }[linear]
    rng = np.random.default_rng(0)
    vs = [rng.normal(size=x.shape) for x in xs]
    for together in moving:
        steps = [v if i in together else 0 * v for i, v in zip(case.active, vs, strict=True)]
        up, down = (f(*(x + s * v for x, v in zip(xs, steps, strict=True))) for s in (1, -1))
        np.testing.assert_allclose((up + down) / 2, f(*xs), rtol=1e-7, atol=1e-7)


def test_every_maximum_names_the_average_over_the_same() -> None:
    for name, row in OPERATORS.items():
        assert (row.kind is Kind.MAXIMUM) == (row.average is not None), name
        if row.average is not None:
            assert row_of(row.average).kind is Kind.POOL
            assert row_of(row.average).axes is row.axes


def test_an_operator_of_no_row_is_one_of_which_nothing_is_known() -> None:
    assert row_of("Det") == Operator()
    assert "Det" not in VJPS
    assert VJPS.get("Equal") is None
    assert row_of("Equal").kind is Kind.TEST


def test_products_and_transpositions_mix_axes_and_nothing_else_does():
    mixing = {name for name, row in OPERATORS.items() if row.mixes_axes}
    assert {"MatMul", "Gemm", "Conv", "Transpose"} <= mixing
    assert mixing.isdisjoint(["Relu", "Add", "Reshape", "MaxPool", "LayerNormalization", "Concat"])
