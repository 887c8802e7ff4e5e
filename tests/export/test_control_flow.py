"""`If`, `Loop` and `Scan` that no image decides are written out; those that it decides stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxplain
from onnxplain.errors import SourceError

from .graphs import explain, head, images, node, operators, source_outputs, write

X = images(2, 3, 6, 6)
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, int],
    inputs: dict[str, int] | None = None,
    **constants: Any,
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        f"body of {next(iter(outputs))}",
        [
            helper.make_tensor_value_info(n, t, None if t == FLOAT else [])
            for n, t in (inputs or {}).items()
        ],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )


def scaled(name: str, by: float) -> onnx.GraphProto:
    """x, from the graph around it, times a number."""
    return body([node("Mul", ["x", f"{name}_by"], [name])], {name: FLOAT}, **{
        f"{name}_by": np.float32(by)
    })  # fmt: skip


def choice(condition: str, out: str, **branches: onnx.GraphProto) -> onnx.NodeProto:
    return node("If", [condition], [out], name=f"choose_{out}", **branches)


def check(path: Path, nodes: list[onnx.NodeProto], features: int = 108, opset: int = 20, **w: Any):
    tail, weight = head("h", features)
    write(path, [*nodes, *tail], w | weight, ("N", 3, 6, 6), opset=opset)
    expected = source_outputs(path, X)[0]
    explanation = explain(path, X)
    np.testing.assert_allclose(explanation.logits, expected, rtol=1e-4, atol=1e-5)
    count = operators(path.with_suffix(".gradient.onnx"))
    assert count["If"] == count["Loop"] == count["Scan"] == 0
    return explanation


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("opset", [11, 20])
def test_the_branch_of_a_constant_condition_is_taken(
    opset: int, condition: bool, tmp_path: Path
) -> None:
    branches = {"then_branch": scaled("a", 3.0), "else_branch": scaled("b", -2.0)}
    nodes = [choice("c", "h", **branches)]
    explanation = check(tmp_path / "if.onnx", nodes, opset=opset, c=np.array(condition))
    factor = 3.0 if condition else -2.0
    expected = factor * head("h", 108)[1]["W"][:, 1].reshape(3, 6, 6)
    np.testing.assert_allclose(explanation.pullback[0], expected, rtol=1e-5)


def test_a_condition_on_a_size_that_is_known(tmp_path: Path) -> None:
    """As TorchScript leaves `if x.shape[2] > 4`."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "two"], ["height"], axis=0),
        node("Greater", ["height", "four"], ["tall"]),
        choice("tall", "h", then_branch=scaled("a", 3.0), else_branch=scaled("b", -2.0)),
    ]
    check(tmp_path / "if.onnx", nodes, two=np.array(2), four=np.array(4))


def test_branches_within_branches_and_names_used_twice(tmp_path: Path) -> None:
    inner = choice("d", "i", then_branch=scaled("a", 2.0), else_branch=scaled("b", 1.0))
    outer = body([inner, node("Add", ["i", "x"], ["o"])], {"o": FLOAT})
    nodes = [
        choice("c", "p", then_branch=outer, else_branch=scaled("z", 5.0)),
        choice("d", "q", then_branch=scaled("e", 2.0), else_branch=scaled("a", 7.0)),
        node("Mul", ["p", "q"], ["h"]),
    ]
    check(tmp_path / "if.onnx", nodes, c=np.array(True), d=np.array(False))


def rounds(carry: str, *more: onnx.NodeProto, condition: str = "go") -> onnx.GraphProto:
    """v ← v · w + x, and what `more` makes of it."""
    nodes = [
        node("Mul", ["v", "w"], ["vw"]),
        node("Add", ["vw", "x"], [carry]),
        *more,
    ]
    outputs = {condition: BOOL, carry: FLOAT}
    outputs |= {name: FLOAT for made in more for name in made.output if name.startswith("scan")}
    return body(nodes, outputs, {"i": INT64, "going": BOOL, "v": FLOAT})


GO = node("Identity", ["going"], ["go"])


def test_a_loop_of_so_many_rounds(tmp_path: Path) -> None:
    loop = node("Loop", ["three", "", "x"], ["h"], body=rounds("out", GO))
    check(tmp_path / "loop.onnx", [loop], three=np.array(3), w=np.float32(0.5))


def test_a_loop_that_stacks_what_its_rounds_give(tmp_path: Path) -> None:
    counted = [node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["out", "f"], ["scan"])]
    loop = node("Loop", ["three", "yes", "x"], ["last", "all"], body=rounds("out", GO, *counted))
    nodes = [
        loop,
        node("ReduceMean", ["all", "zero"], ["mean"], keepdims=0),
        node("Mul", ["mean", "last"], ["h"]),
    ]
    constants = {"three": np.array(3), "yes": np.array(True), "zero": np.array([0])}
    check(tmp_path / "loop.onnx", nodes, w=np.float32(0.5), **constants)


def test_loops_without_a_name_that_stack_two_results_each(tmp_path: Path) -> None:
    counted = [
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Mul", ["out", "f"], ["scan"]),
        node("Sigmoid", ["scan"], ["scan_too"]),
    ]
    inner = rounds("out", GO, *counted)
    nodes = [
        node("Loop", ["three", "", "x"], ["last", "all", "too"], body=inner),
        node("Loop", ["three", "", "last"], ["end", "more", "most"], body=inner),
        node("Sum", ["all", "too", "more", "most"], ["sum"]),
        node("ReduceMean", ["sum", "zero"], ["mean"], keepdims=0),
        node("Mul", ["mean", "end"], ["h"]),
    ]
    constants = {"three": np.array(3), "zero": np.array([0])}
    check(tmp_path / "loop.onnx", nodes, w=np.float32(0.5), **constants)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("backwards", [0, 1])
def test_a_scan_of_the_image_twice_that_stacks_two_results(
    backwards: int, axis: int, tmp_path: Path
) -> None:
    """s ← tanh(s/2 + a), with b the other way around; beside ONNX Runtime, and differences."""
    nodes = [
        node("Mul", ["s", "half"], ["hs"]),
        node("Add", ["hs", "a"], ["sum"]),
        node("Tanh", ["sum"], ["s_next"]),
        node("Mul", ["s_next", "b"], ["first"]),
        node("Sigmoid", ["s_next"], ["second"]),
    ]
    made = {"s_next": FLOAT, "first": FLOAT, "second": FLOAT}
    inner = body(nodes, made, {"s": FLOAT, "a": FLOAT, "b": FLOAT})
    scan = node(
        "Scan",
        ["start", "x", "x"],
        ["end", "one", "two"],
        body=inner,
        num_scan_inputs=2,
        scan_input_axes=[axis, axis],
        scan_input_directions=[backwards, 1 - backwards],
        scan_output_axes=[1, -1],
        scan_output_directions=[1 - backwards, backwards],
    )
    nodes = [
        node("ReduceMean", ["x", "axis"], ["start"], keepdims=0),
        scan,
        node("ReduceSum", ["one", "behind"], ["p"], keepdims=0),
        node("ReduceSum", ["two", "before"], ["q"], keepdims=0),
        node("ReduceSum", ["end", "last"], ["r"], keepdims=0),
        node("Concat", ["p", "q", "r"], ["h"], axis=1),
    ]
    path = tmp_path / "scan.onnx"
    axes = {"behind": np.array([2, 3]), "before": np.array([1, 2]), "last": np.array([2])}
    features = 2 * X.shape[axis] + (6 if axis == 1 else 3)
    weights = {"axis": np.array([axis]), "half": np.float32(0.5)}
    explanation = check(path, nodes, features, **axes, **weights)
    assert_slope(path, X, explanation.pullback)


def assert_slope(path: Path, x: np.ndarray, pullback: np.ndarray) -> None:
    """Along a random direction, beside differences of the source."""
    v, h = images(*x.shape, seed=5), 1e-2
    up, down = (source_outputs(path, x + s * np.float32(h) * v)[0][:, 1] for s in (1, -1))
    slope = (pullback * v).sum((1, 2, 3))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=5e-3, atol=5e-3)


def test_a_scan_of_opset_8_which_has_a_batch(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["s", "half"], ["hs"]),
        node("Add", ["hs", "a"], ["sum"]),
        node("Tanh", ["sum"], ["s_next"]),
        node("Identity", ["s_next"], ["out"]),
    ]
    inner = body(nodes, {"s_next": FLOAT, "out": FLOAT}, {"s": FLOAT, "a": FLOAT})
    inputs, outputs = ["", "start", "x"], ["end", "all"]
    scan = node("Scan", inputs, outputs, body=inner, num_scan_inputs=1, directions=[1])
    tail, weight = head("h", 108)
    nodes = [
        node("ReduceMean", ["x"], ["start"], axes=[1], keepdims=0),
        scan,
        node("Unsqueeze", ["end"], ["last"], axes=[1]),
        node("Mul", ["all", "last"], ["h"]),
        *tail,
    ]
    path = tmp_path / "scan.onnx"
    weights = weight | {"half": np.float32(0.5)}
    write(path, nodes, weights, X.shape, opset=8)
    explanation = explain(path, X)
    np.testing.assert_allclose(explanation.logits, source_outputs(path, X)[0], rtol=1e-5)
    assert_slope(path, X, explanation.pullback)
    write(path, nodes, weights, ("N", *X.shape[1:]), opset=8)
    with pytest.raises(SourceError, match=r"Scan '.*' is that of opset 8, with lengths or an open"):
        explain(path, X)


def test_a_loop_that_counts_in_steps_that_follow_from_the_image(tmp_path: Path) -> None:
    """As ONNX spells a Range of floats; its rounds are as many as the image says."""
    copied = node("Identity", ["v"], ["scan"])
    nodes = [GO, node("Add", ["step", "v"], ["next"]), copied]
    made = {"go": BOOL, "next": FLOAT, "scan": FLOAT}
    inner = body(nodes, made, {"i": INT64, "going": BOOL, "v": FLOAT})
    del inner.input[2].type.tensor_type.shape.dim[:]
    tail, weight = head("h", 108)
    nodes = [
        node("ReduceMean", ["x"], ["start"], keepdims=0),
        node("ReduceMax", ["x"], ["step"], keepdims=0),
        node("Mul", ["step", "times"], ["many"]),
        node("Cast", ["many"], ["rounds"], to=INT64),
        node("Cast", ["rounds"], ["yes"], to=BOOL),
        node("Loop", ["rounds", "yes", "start"], ["end", "all"], body=inner),
        node("Softmax", ["all"], ["weights"], axis=0),
        node("Mul", ["all", "weights"], ["weighted"]),
        node("ReduceSum", ["weighted"], ["sum"], keepdims=0),
        node("Sum", ["sum", "end"], ["factor"]),
        node("Mul", ["x", "factor"], ["h"]),
        *tail,
    ]
    path = tmp_path / "loop.onnx"
    write(path, nodes, weight | {"times": np.float32(4.5) / X[:1].max()}, (1, 3, 6, 6))
    explanation = explain(path, X[:1])
    np.testing.assert_allclose(explanation.logits, source_outputs(path, X[:1])[0], rtol=1e-5)
    assert_slope(path, X[:1], explanation.pullback)


LONG = 1001


@pytest.mark.parametrize("kind", ["Scan", "Loop"])
def test_what_has_too_many_rounds_to_write_out_stays(kind: str, tmp_path: Path) -> None:
    add = node("Add", ["s", "a"], ["t"])
    if kind == "Scan":
        inner = body([add], {"t": FLOAT}, {"s": FLOAT, "a": FLOAT})
        rounds = node("Scan", ["x", "wide"], ["h"], body=inner, num_scan_inputs=1)
        nodes = [node("Expand", ["x", "long"], ["wide"]), rounds]
    else:
        inputs = {"i": INT64, "going": BOOL, "s": FLOAT}
        inner = body([GO, node("Identity", ["x"], ["a"]), add], {"go": BOOL, "t": FLOAT}, inputs)
        nodes = [node("Loop", ["many", "", "x"], ["h"], body=inner)]
    constants = {"long": np.array([LONG, 1, 1, 1, 1]), "many": np.array(LONG)}
    found = decided(tmp_path / "long.onnx", X, nodes, "gradient", **constants)
    slope = (1 + LONG) * head("h", 108)[1]["W"][:, 1].reshape(3, 6, 6)
    np.testing.assert_allclose(found[0], slope, rtol=1e-4)


def test_a_loop_that_ends_by_counting_its_rounds(tmp_path: Path) -> None:
    until = node("Less", ["i", "two"], ["go"])
    loop = node("Loop", ["", "yes", "x"], ["h"], body=rounds("out", until))
    constants = {"two": np.array(2), "yes": np.array(True), "w": np.float32(0.5)}
    check(tmp_path / "loop.onnx", [loop], **constants)


def test_a_loop_of_no_round(tmp_path: Path) -> None:
    loop = node("Loop", ["none", "", "x"], ["h"], body=rounds("out", GO))
    check(tmp_path / "loop.onnx", [loop], none=np.array(0), w=np.float32(0.5))


def test_a_choice_within_a_loop_by_the_round(tmp_path: Path) -> None:
    nodes = [
        GO,
        node("Equal", ["i", "one"], ["second"]),
        choice("second", "y", then_branch=scaled("a", 2.0), else_branch=scaled("b", -1.0)),
        node("Add", ["y", "v"], ["out"]),
    ]
    inner = body(nodes, {"go": BOOL, "out": FLOAT}, {"i": INT64, "going": BOOL, "v": FLOAT})
    loop = node("Loop", ["three", "", "x"], ["h"], body=inner)
    check(tmp_path / "loop.onnx", [loop], three=np.array(3), one=np.array(1))


def refused(path: Path, *nodes: onnx.NodeProto, **weights: Any) -> None:
    tail, weight = head("h", 108)
    write(path, [*nodes, *tail], weights | weight, ("N", 3, 6, 6))
    explain(path, X)


BRIGHT = [
    node("ReduceSum", ["x"], ["sum"], keepdims=0),
    node("Greater", ["sum", "zero"], ["bright"]),
]


def decided(path: Path, x: np.ndarray, nodes: list[onnx.NodeProto], method: str, **w: Any):
    """Explain what the image decides, and compare the logits."""
    tail, weight = head("h", 108)
    write(path, [*nodes, *tail], w | weight, ("N", 3, 6, 6))
    explanation = explain(path, x, method)
    np.testing.assert_allclose(explanation.logits, source_outputs(path, x)[0], rtol=1e-4, atol=1e-5)
    return explanation.pullback


@pytest.mark.parametrize("bright", [1, -1])
def test_an_if_that_the_image_decides(bright: int, tmp_path: Path) -> None:
    chosen = choice("bright", "h", then_branch=scaled("a", 2.0), else_branch=scaled("b", 3.0))
    x = bright * np.abs(X)
    found = decided(tmp_path / "if.onnx", x, [*BRIGHT, chosen], "gradient", zero=np.float32(0))
    slope = (2 if bright > 0 else 3) * head("h", 108)[1]["W"][:, 1].reshape(3, 6, 6)
    np.testing.assert_allclose(found[0], slope, rtol=1e-5)


def test_a_loop_that_the_image_ends(tmp_path: Path) -> None:
    stop = [node("ReduceSum", ["out"], ["s"], keepdims=0), node("Less", ["s", "w"], ["go"])]
    loop = node("Loop", ["", "yes", "x"], ["h"], name="until", body=rounds("out", *stop))
    path = tmp_path / "loop.onnx"
    x = np.abs(X[:1]) * np.float32(0.01)
    constants = {"yes": np.array(True), "w": np.float32(1.5)}
    found = decided(path, x, [loop], "gradient", **constants)
    assert found.max() > 2 * head("h", 108)[1]["W"][:, 1].max()  # of several rounds
    assert_slope(path, x, found)


def test_a_method_acts_in_the_bodies_of_what_the_image_decides(tmp_path: Path) -> None:
    """Excitation: h = relu(z) with z = 2 x − 1 or 3 x − 1, so 2 σ(z / 0.3) or 3 σ(z / 0.3)."""

    def rectified(name: str, by: float) -> onnx.GraphProto:
        nodes = [
            node("Mul", ["x", f"{name}_by"], [f"{name}x"]),
            node("Sub", [f"{name}x", "one"], [f"{name}z"]),
            node("Max", [f"{name}z", "zero"], [name]),
        ]
        return body(nodes, {name: FLOAT}, **{f"{name}_by": np.float32(by)})

    chosen = choice("bright", "h", then_branch=rectified("a", 2), else_branch=rectified("b", 3))
    constants = {"zero": np.float32(0), "one": np.float32(1)}
    for x, by in ((np.abs(X), 2), (-np.abs(X), 3)):
        found = decided(tmp_path / "if.onnx", x, [*BRIGHT, chosen], "excitation", **constants)
        gate = 1 / (1 + np.exp(-(by * x - 1) / 0.3))
        weight = head("h", 108)[1]["W"][:, 1].reshape(3, 6, 6)
        np.testing.assert_allclose(found, by * gate * weight, rtol=1e-4, atol=1e-6)
    metadata = onnxplain.load(tmp_path / "if.excitation.onnx").metadata
    assert [len(layers) for layers in metadata.replaced.values()] == [2]
    assert not any("replaces no derivative" in note for note in metadata.notes)


def test_what_a_method_replaces_of_a_state_that_depends_on_the_image_after_a_round(
    tmp_path: Path,
) -> None:
    """v ← relu(v) · w + x, of zeros at first; what ends it is not passed."""
    nodes = [
        node("Relu", ["v"], ["r"]),
        node("Mul", ["r", "w"], ["rw"]),
        node("Add", ["rw", "x"], ["out"]),
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Relu", ["f"], ["g"]),
        node("Less", ["g", "w"], ["go"]),
    ]
    inner = body(nodes, {"go": BOOL, "out": FLOAT}, {"i": INT64, "going": BOOL, "v": FLOAT})
    loop = node("Loop", ["", "bright", "none"], ["h"], name="until", body=inner)
    start = [node("Shape", ["x"], ["shape"]), node("ConstantOfShape", ["shape"], ["none"])]
    constants = {"zero": np.float32(0), "w": np.float32(1.5)}
    decided(tmp_path / "loop.onnx", np.abs(X), [*BRIGHT, *start, loop], "excitation", **constants)
    metadata = onnxplain.load(tmp_path / "loop.excitation.onnx").metadata
    assert [len(layers) for layers in metadata.replaced.values()] == [1]


def test_several_targets_and_paths_of_images_take_the_course_of_each(tmp_path: Path) -> None:
    """h = 2 x² or 3 x²: integrated gradients are x · 2 x · W or x · 3 x · W, as 0 is no kink."""

    def squared(name: str, by: float) -> onnx.GraphProto:
        nodes = [node("Mul", ["x", "x"], [f"{name}q"]), node("Mul", [f"{name}q", "by"], [name])]
        return body(nodes, {name: FLOAT}, by=np.float32(by))

    chosen = choice("bright", "h", then_branch=squared("a", 2), else_branch=squared("b", 3))
    tail, weight = head("h", 108)
    path, files = tmp_path / "if.onnx", [tmp_path / "several.onnx", tmp_path / "path.onnx"]
    write(path, [*BRIGHT, chosen, *tail], weight | {"zero": np.float32(0)}, ("N", 3, 6, 6))
    onnxplain.export(path, files[0], method="gradient", multi_target=True)
    onnxplain.export(path, files[1], method="gradient", estimator="integrated-gradients")
    several, along = (onnxplain.load(file, threads=1) for file in files)
    slopes = weight["W"].T.reshape(4, 3, 6, 6)
    for x, by in ((np.abs(X[:1]), 2), (-np.abs(X[:1]), 3)):
        found = several(x, np.array([[1, 3]])).pullback
        np.testing.assert_allclose(found, 2 * by * x * slopes[None, [1, 3]], rtol=1e-4)
        np.testing.assert_allclose(along(x, 1).pullback, by * x * x * slopes[1], rtol=1e-4)
    with pytest.raises(SourceError, match="chunk above 1"):
        onnxplain.export(path, files[1], estimator="smoothgrad", parameters={"chunk": 2})


def test_a_loop_without_end_is_named(tmp_path: Path) -> None:
    loop = node("Loop", ["", "yes", "x"], ["h"], name="ever", body=rounds("out", GO))
    with pytest.raises(SourceError, match=r"Loop 'ever'.*does not end"):
        refused(tmp_path / "loop.onnx", loop, yes=np.array(True), w=np.float32(0.5))


def test_control_flow_beside_the_logits_does_not_matter(tmp_path: Path) -> None:
    chosen = choice("bright", "spare", then_branch=scaled("a", 2.0), else_branch=scaled("b", 3.0))
    copy = node("Identity", ["x"], ["h"])
    refused(tmp_path / "if.onnx", *BRIGHT, chosen, copy, zero=np.float32(0))


def test_a_condition_on_a_size_that_is_a_multiple_of_the_batch(tmp_path: Path) -> None:
    """As `if x.shape[0] % 36 == 0` of x.view(36 * batch, 3): so it is, whatever the batch."""
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "rows"], ["r"]),
        node("Shape", ["r"], ["shape"], start=0, end=1),
        node("Mod", ["shape", "each"], ["rest"]),
        node("Equal", ["rest", "none"], ["even"]),
        node("Squeeze", ["even"], ["c"]),
        choice("c", "h", then_branch=scaled("a", 3.0), else_branch=scaled("b", -2.0)),
    ]
    constants = {"rows": np.array([-1, 3]), "each": np.array([36]), "none": np.array([0])}
    explanation = check(tmp_path / "if.onnx", nodes, **constants)
    assert explanation.pullback.any()


@pytest.mark.parametrize(
    ("operator", "number", "scale"),
    [("Equal", 4, 1), ("Equal", 100, 1), ("Greater", 2000, 1), ("Equal", 72, 36)],
)
def test_a_condition_that_some_batch_meets_is_not_decided(
    operator: str, number: int, scale: int, tmp_path: Path
) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Mul", ["shape", "scale"], ["size"]),
        node(operator, ["size", "number"], ["met"]),
        node("Squeeze", ["met"], ["c"]),
        choice("c", "h", then_branch=scaled("a", 3.0), else_branch=scaled("b", -2.0)),
    ]
    constants = {"scale": np.array([scale]), "number": np.array([number])}
    found = decided(tmp_path / "if.onnx", X, nodes, "gradient", **constants)
    slope = -2 * head("h", 108)[1]["W"][:, 1].reshape(3, 6, 6)
    met = operator == "Equal" and number == 2 * scale
    np.testing.assert_allclose(found[0], slope if not met else -1.5 * slope, rtol=1e-5)
