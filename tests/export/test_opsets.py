"""Operators older and newer than opset 20: the logits stay the source's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from onnxplain.errors import NoRuleError, SourceError
from onnxplain.export.canonical.opsets import spell_newer
from onnxplain.export.canonical.spelled.table import SPELLINGS

from .graphs import Array, explain, head, images, node, operators, source_outputs, write

X = images(2, 3, 6, 6)
BATCH_NORM = {name: np.abs(images(3, seed=i)) + 0.5 for i, name in enumerate("sbmv")}


def same_logits(path: Path, x: Array, **options: Any) -> None:
    expected = source_outputs(path, x)[0]
    explanation = explain(path, x, **options)
    np.testing.assert_allclose(explanation.logits, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(explanation.pullback).all()
    assert explanation.pullback.any()


OLD: dict[str, tuple[int, list[onnx.NodeProto], dict[str, Any], int]] = {
    "nearest Upsample with scales as an attribute": (
        7,
        [node("Upsample", ["x"], ["h"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")],
        {},
        3 * 144,
    ),
    "linear Upsample, whose pixels are not at their centres": (
        9,
        [node("Upsample", ["x", "scales"], ["h"], mode="linear")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        3 * 144,
    ),
    "linear Resize of opset 10": (
        10,
        [node("Resize", ["x", "scales"], ["h"], mode="linear")],
        {"scales": np.array([1, 1, 1.5, 0.5], np.float32)},
        3 * 27,
    ),
    "BatchNormalization with spatial": (
        7,
        [node("BatchNormalization", ["x", *"sbmv"], ["h"], spatial=1, momentum=0.9)],
        BATCH_NORM,
        3 * 36,
    ),
    "Softmax that takes a matrix": (
        9,
        [node("Softmax", ["x"], ["h"], axis=2)],
        {},
        3 * 36,
    ),
    "Dropout with a ratio": (7, [node("Dropout", ["x"], ["h"], ratio=0.4)], {}, 3 * 36),
    "Clip with bounds as attributes": (
        8,
        [node("Clip", ["x"], ["h"], min=-0.5, max=0.7)],
        {},
        3 * 36,
    ),
    "Pad with attributes": (
        7,
        [node("Pad", ["x"], ["h"], pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.5)],
        {},
        3 * 9 * 7,
    ),
    "Slice with attributes": (
        9,
        [node("Slice", ["x"], ["h"], axes=[2, 3], starts=[1, 0], ends=[5, -1])],
        {},
        3 * 4 * 5,
    ),
    "reductions, squeezes and splits with axes as attributes": (
        11,
        [
            node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=1),
            node("Squeeze", ["m"], ["q"], axes=[2]),
            node("Unsqueeze", ["q"], ["u"], axes=[3]),
            node("Split", ["u"], ["a", "b"], axis=1, split=[1, 2]),
            node("ReduceSum", ["b"], ["c"], axes=[1], keepdims=1),
            node("Mul", ["a", "c"], ["h"]),
        ],
        {},
        6,
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_older_spellings_are_raised(name: str, tmp_path: Path) -> None:
    opset, nodes, weights, features = OLD[name]
    tail, weight = head("h", features)
    shape = ("N", 3, 6, 6)
    path = write(tmp_path / "old.onnx", [*nodes, *tail], weights | weight, shape, opset=opset)
    same_logits(path, X)


def test_what_onnx_cannot_raise_is_named(tmp_path: Path) -> None:
    training = node("BatchNormalization", ["x", *"sbmv"], ["h", *"12345"[:4]])
    tail, weight = head("h", 3 * 36)
    path = write(tmp_path / "t.onnx", [training, *tail], BATCH_NORM | weight, X.shape, opset=9)
    with pytest.raises(SourceError, match=r"cannot raise opset 9 to 20: .*BatchNormalization"):
        explain(path, X)


def transformer(
    path: Path, opset: int, attention: onnx.NodeProto, width: int, **extra: Any
) -> Path:
    """Patches of 2 × 2 as 16 tokens of 24 numbers, projected to q, k and v."""
    weights: dict[str, Any] = {
        name: images(12, columns, seed=i) / 4
        for i, (name, columns) in enumerate((("Wq", 24), ("Wk", width), ("Wv", width)))
    }
    nodes = [
        node("SpaceToDepth", ["x"], ["patches"], blocksize=2),
        node("Reshape", ["patches", "flat_shape"], ["rows"]),
        node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        node("MatMul", ["tokens", "Wq"], ["q"]),
        node("MatMul", ["tokens", "Wk"], ["k"]),
        node("MatMul", ["tokens", "Wv"], ["v"]),
        attention,
    ]
    tail, head_weight = head("h", 16 * 24)
    weights |= {"flat_shape": np.array([0, 12, -1])} | extra | head_weight
    return write(path, [*nodes, *tail], weights, opset=opset)


MASK = np.tril(np.ones((16, 16), bool))


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes", "width"),
    [
        (23, [], {"q_num_heads": 4, "kv_num_heads": 4}, 24),
        (23, [], {"q_num_heads": 4, "kv_num_heads": 2}, 12),  # grouped queries
        (23, [], {"q_num_heads": 4, "kv_num_heads": 1, "scale": 0.2, "softcap": 1.5}, 6),
        (23, ["mask"], {"q_num_heads": 4, "kv_num_heads": 4}, 24),
        (24, ["bias"], {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1}, 24),
    ],
)
def test_attention_becomes_matmul_softmax_matmul(
    opset: int, inputs: list[str], attributes: dict[str, Any], width: int, tmp_path: Path
) -> None:
    attention = node("Attention", ["q", "k", "v", *inputs], ["h"], **attributes)
    extra = {"mask": MASK, "bias": images(4, 16, 16)[:2]}
    given = {name: extra[name] for name in inputs}
    path = transformer(tmp_path / "a.onnx", opset, attention, width, **given)
    same_logits(path, images(2, 3, 8, 8))
    explained = tmp_path / "a.gradient.onnx"
    assert operators(explained)["Attention"] == 0
    assert operators(explained)["Softmax"] == 1
    assert onnx.load(explained).opset_import[0].version == 20  # which older runtimes run too


def test_attention_with_a_cache_of_keys_and_values(tmp_path: Path) -> None:
    inputs = ["q", "k", "v", "", "past", "past"]
    attributes = {"q_num_heads": 4, "kv_num_heads": 4}
    attention = node("Attention", inputs, ["h", "keys", "values"], name="cached", **attributes)
    past = images(2, 4, 3, 6)
    same_logits(transformer(tmp_path / "a.onnx", 23, attention, 24, past=past), images(2, 3, 8, 8))


def test_attention_of_a_query_that_may_attend_no_key_is_zero(tmp_path: Path) -> None:
    """As the specification has it, and ONNX Runtime; the others are as they were."""
    mask = MASK.copy()
    mask[[0, 5]] = False
    attention = node("Attention", ["q", "k", "v", "mask"], ["h"], q_num_heads=4, kv_num_heads=4)
    same_logits(transformer(tmp_path / "a.onnx", 24, attention, 24, mask=mask), images(2, 3, 8, 8))


def test_an_attribute_that_a_spelling_does_not_know_is_an_error() -> None:
    """So none is ignored: a form knows all that its schema has, or says so."""
    for name, spelling in SPELLINGS.items():
        *domain, op_type = name.split("::")
        schema = onnx.defs.get_schema(op_type, domain="".join(domain))
        assert spelling.attributes == set(schema.attributes), name
    unknown = ir.node("Swish", [ir.Value(name="x")], {"beta": 2.0}, name="odd")
    model = ir.Model(ir.Graph([], [], nodes=[unknown], opset_imports={"": 24}), ir_version=10)
    with pytest.raises(SourceError, match=r"Swish 'odd' has beta"):
        spell_newer(model)


def test_space_to_depth_with_the_channels_first(tmp_path: Path) -> None:
    """PyTorch's pixel_unshuffle, which is the mode CRD of opset 28."""
    made = node("SpaceToDepth", ["x"], ["h"], blocksize=2, mode="CRD")
    path = newer(tmp_path / "s.onnx", 28, made)
    pieces = X.reshape(2, 3, 3, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4)
    weight = head("h", 3 * 36)[1]["W"]
    explanation = explain(path, X)
    expected = pieces.reshape(2, -1) @ weight
    np.testing.assert_allclose(explanation.logits, expected, rtol=1e-4, atol=1e-5)
    back = weight[:, 1].reshape(3, 2, 2, 3, 3).transpose(0, 3, 1, 4, 2).reshape(3, 6, 6)
    np.testing.assert_allclose(explanation.pullback, np.stack([back] * 2), rtol=1e-5)


def test_attention_over_heads_given_apart(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", ["x", "to_heads"], ["q"]),
        node("Attention", ["q", "q", "q"], ["h"], scale=0.3),
    ]
    tail, weight = head("h", 192)
    weights = {"to_heads": np.array([0, 3, 16, 4])} | weight
    same_logits(write(tmp_path / "a.onnx", [*nodes, *tail], weights, opset=23), images(2, 3, 8, 8))


def test_flexible_attention_whose_subgraphs_read_what_is_around_them(tmp_path: Path) -> None:
    """A bias that was learned, and a factor that follows from the image."""

    def modifier(name: str, op_type: str, by: str) -> onnx.GraphProto:
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "changed")]
        inner = node(op_type, ["s", by], ["changed"])
        return helper.make_graph([inner], name, ends[:1], ends[1:])

    domain = "ai.onnx.preview"
    nodes = [
        node("Reshape", ["x", "to_heads"], ["q"]),
        node("ReduceMean", ["x", "axes"], ["mean"]),
        node("FlexAttention", ["q", "q", "q"], ["h"], domain=domain, scale=0.3),
    ]
    for name, op_type, by in (("score_mod", "Add", "bias"), ("prob_mod", "Mul", "mean")):
        changed = helper.make_attribute(name, modifier(name, op_type, by))
        nodes[-1].attribute.append(changed)
    tail, weight = head("h", 192)
    bias = images(3, 16, 16, seed=3)
    weights = {"to_heads": np.array([0, 3, 16, 4]), "axes": np.array([1, 2, 3]), "bias": bias}
    path = write(tmp_path / "f.onnx", nodes + tail, weights | weight, opset=26, domains=[domain])

    images_given = images(2, 3, 8, 8)
    x = torch.tensor(images_given, requires_grad=True)
    q = x.reshape(2, 3, 16, 4)
    scores = q @ q.mT * 0.3 + torch.tensor(bias)
    h = (scores.softmax(-1) * x.mean((1, 2, 3), keepdim=True)) @ q
    logits = h.flatten(1) @ torch.tensor(weight["W"])
    logits[:, 1].sum().backward()
    explanation = explain(path, images_given)
    np.testing.assert_allclose(explanation.logits, logits.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explanation.pullback, x.grad, rtol=1e-3, atol=1e-5)

    model = onnx.load(path)  # ONNX's own body has the name, too
    named = model.SerializeToString().replace(b"\x04bias", b"\x04Prob")
    path.write_bytes(named)
    with pytest.raises(
        SourceError, match=r"subgraph of FlexAttention '.*' reads 'Prob'.*rename it"
    ):
        explain(path, images_given)


def newer(path: Path, opset: int, *nodes: onnx.NodeProto, **weights: Any) -> Path:
    tail, weight = head("h", 3 * 36)
    return write(path, [*nodes, *tail], weights | weight, ("N", 3, 6, 6), opset=opset)


def test_an_optional_value_that_is_there_is_a_tensor(tmp_path: Path) -> None:
    nodes = [
        node("Optional", ["x"], ["perhaps"]),
        node("OptionalGetElement", ["perhaps"], ["surely"]),
        node("OptionalGetElement", ["surely"], ["h"]),
    ]
    path = newer(tmp_path / "o.onnx", 20, *nodes)
    same_logits(path, X)
    assert not {"Optional", "OptionalGetElement"} & {*operators(tmp_path / "o.gradient.onnx")}


def test_features_chosen_by_an_operator_of_classical_models(tmp_path: Path) -> None:
    """Of opset 1, in a file that imports no standard operator but those of the head."""
    nodes = [
        node("ArrayFeatureExtractor", ["x", "columns"], ["h"], domain="ai.onnx.ml"),
        node("Flatten", ["h"], ["flat"]),
        node("Gemm", ["flat", "W"], ["y"]),
    ]
    weights = {"columns": np.array([[5, 0, 0]]), "W": images(3 * 6 * 3, 4)}
    path = tmp_path / "a.onnx"
    write(path, nodes, weights, ("N", 3, 6, 6), opset=13, domains=["ai.onnx.ml"])
    same_logits(path, X)


def test_rms_normalization(tmp_path: Path) -> None:
    norm = node("RMSNormalization", ["x", "scale"], ["h"], axis=2, epsilon=1e-3)
    path = newer(tmp_path / "rms.onnx", 23, norm, scale=images(6, 6))
    mean = (X.astype(np.float64) ** 2).mean((2, 3), keepdims=True)
    h = X / np.sqrt(mean + 1e-3) * images(6, 6)
    expected = h.reshape(2, -1) @ head("h", 3 * 36)[1]["W"]
    np.testing.assert_allclose(explain(path, X).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("opset", "size"), [(18, 2), (21, 6)])
def test_group_normalization_per_group_and_per_channel(
    opset: int, size: int, tmp_path: Path
) -> None:
    """ONNX Runtime runs neither as it stands, so the expected logits are numpy's."""
    scale, bias = images(size, seed=1), images(size, seed=2)
    twice = node("Concat", ["x", "x"], ["six"], axis=1)
    norm = node("GroupNormalization", ["six", "scale", "bias"], ["h"], num_groups=2, epsilon=1e-3)
    tail, weight = head("h", 6 * 36)
    weights = {"scale": scale, "bias": bias} | weight
    shape = ("N", 3, 6, 6)
    path = write(tmp_path / "gn.onnx", [twice, norm, *tail], weights, shape, opset=opset)
    six = np.concatenate([X, X], 1).astype(np.float64)
    grouped = six.reshape(2, 2, -1)
    deviation = np.sqrt(grouped.var(2, keepdims=True) + 1e-3)
    y = ((grouped - grouped.mean(2, keepdims=True)) / deviation).reshape(six.shape)
    per_channel = [a.repeat(6 // size)[:, None, None] for a in (scale, bias)]
    expected = (y * per_channel[0] + per_channel[1]).reshape(2, -1) @ weight["W"]
    np.testing.assert_allclose(explain(path, X).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 1.702])
def test_swish(alpha: float, tmp_path: Path) -> None:
    path = newer(tmp_path / "swish.onnx", 24, node("Swish", ["x"], ["h"], alpha=alpha))
    h = X / (1 + np.exp(-alpha * X))
    expected = h.reshape(2, -1) @ head("h", 3 * 36)[1]["W"]
    np.testing.assert_allclose(explain(path, X).logits, expected, rtol=1e-4, atol=1e-5)


def test_what_the_body_of_a_newer_operator_calls_is_spelled_too(tmp_path: Path) -> None:
    """SwiGLU's is a Swish and a product."""
    path = newer(tmp_path / "g.onnx", 28, node("SwiGLU", ["x", "x"], ["h"], alpha=1.5))
    h = X * X / (1 + np.exp(-1.5 * X))
    expected = h.reshape(2, -1) @ head("h", 3 * 36)[1]["W"]
    np.testing.assert_allclose(explain(path, X).logits, expected, rtol=1e-4, atol=1e-5)
    explained = onnx.load(tmp_path / "g.gradient.onnx")
    assert explained.opset_import[0].version == 20


@pytest.mark.parametrize("opset", range(24, 29))
def test_a_body_is_taken_in_the_opset_of_its_model(opset: int, tmp_path: Path) -> None:
    angles = images(2, 6, 3)
    rotary = node("RotaryEmbedding", ["x", "cos", "sin"], ["h"])
    weights = {"cos": np.cos(angles), "sin": np.sin(angles)}
    same = explain(newer(tmp_path / "23.onnx", 23, rotary, **weights), X)
    found = explain(newer(tmp_path / "n.onnx", opset, rotary, **weights), X)
    np.testing.assert_array_equal(found.pullback, same.pullback)


def test_the_nearest_pixel_of_opset_10_where_an_axis_shrinks(tmp_path: Path) -> None:
    """ONNX Runtime on the file itself takes the one above: 1, 3; where it grows the one below."""
    scales = np.array([1, 1, 1.5, 0.6], np.float32)
    nodes = [node("Resize", ["x", "scales"], ["h"], mode="nearest")]
    tail, weight = head("h", 6)
    path = tmp_path / "old.onnx"
    write(path, [*nodes, *tail], {"scales": scales} | weight, ["N", 1, 2, 4], opset=10)
    same_logits(path, np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 4))


def test_rotary_embedding_by_the_body_that_onnx_gives_it(tmp_path: Path) -> None:
    angles = images(2, 6, 3)
    rotary = node("RotaryEmbedding", ["x", "cos", "sin"], ["h"])
    path = newer(tmp_path / "r.onnx", 23, rotary, cos=np.cos(angles), sin=np.sin(angles))
    same_logits(path, X)


def test_a_mean_variance_normalisation_that_leaves_its_axes_to_the_default(tmp_path: Path) -> None:
    norm = node("MeanVarianceNormalization", ["x"], ["h"])
    path = newer(tmp_path / "mvn.onnx", 13, norm)
    h = (X - X.mean((0, 2, 3), keepdims=True)) / X.std((0, 2, 3), keepdims=True)
    expected = h.reshape(2, -1) @ head("h", 3 * 36)[1]["W"]
    np.testing.assert_allclose(explain(path, X).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_fourier_transform_is_a_product_with_its_matrix(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "last"], ["parts"]),
        node("DFT", ["parts", "", "axis"], ["h"], onesided=1),
    ]
    tail, weight = head("h", 3 * 6 * 4 * 2)
    weights = {"last": np.array([-1]), "axis": np.array(3)} | weight
    same_logits(write(tmp_path / "f.onnx", [*nodes, *tail], weights, ("N", 3, 6, 6)), X)
    assert operators(tmp_path / "f.gradient.onnx")["DFT"] == 0


def test_a_deformable_convolution_samples_its_windows(tmp_path: Path) -> None:
    """Its offsets made from the image, as networks have them."""
    nodes = [
        node("Conv", ["x", "F"], ["offset"], pads=[1] * 4),
        node("DeformConv", ["x", "K", "offset", "b"], ["h"], pads=[1] * 4, kernel_shape=[3, 3]),
    ]
    weights = {"F": images(18, 3, 3, 3) / 5, "K": images(4, 3, 3, 3, seed=1), "b": images(4)}
    tail, weight = head("h", 4 * 36)
    path = write(tmp_path / "d.onnx", [*nodes, *tail], weights | weight, ("N", 3, 6, 6))
    same_logits(path, X)
    assert operators(tmp_path / "d.gradient.onnx")["DeformConv"] == 0


@pytest.mark.parametrize(
    ("layer", "gates", "attributes"),
    [("RNN", 1, {"activations": ["Relu"]}), ("GRU", 3, {}), ("LSTM", 4, {"clip": 0.5})],
)
def test_a_recurrent_layer_of_an_unusual_kind_goes_step_by_step(
    layer: str, gates: int, attributes: dict[str, Any], tmp_path: Path
) -> None:
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("Transpose", ["r"], ["steps"], perm=[1, 0, 2]),
        node(layer, ["steps", "P", "Q", "B"], ["", "last"], hidden_size=5, **attributes),
        node("Squeeze", ["last", "zero"], ["h"]),
    ]
    weights = {
        "P": images(1, gates * 5, 36) / 6,
        "Q": images(1, gates * 5, 5),
        "B": images(1, 2 * gates * 5),
        "rows": np.array([0, 3, 36]),
        "zero": np.array([0]),
    }
    tail, weight = head("h", 5)
    path = write(tmp_path / "r.onnx", [*nodes, *tail], weights | weight, ("N", 3, 6, 6))
    same_logits(path, X)
    assert operators(tmp_path / "r.gradient.onnx")[layer] == 0


def spelled(operator: str, *shapes: list[int] | None, **attributes: Any) -> ir.Model:
    """A node of inputs of these shapes, spelled in others."""
    xs = [
        ir.Value(name=f"x{i}", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        for i, shape in enumerate(shapes)
    ]
    made = ir.node(operator, xs, attributes, name="long")
    graph = ir.Graph(xs, made.outputs, nodes=[made], opset_imports={"": 20}, name="spelled")
    made.outputs[0].name = "y"
    model = ir.Model(graph, ir_version=10)
    spell_newer(model)
    return model


def test_a_recurrent_layer_turns_its_weights_once_and_multiplies_by_each_once_a_step() -> None:
    steps, hidden, width = 4, 5, 7
    shapes = [steps, 2, width], [1, 3 * hidden, width], [1, 3 * hidden, hidden], [1, 6 * hidden]
    graph = spelled("GRU", *shapes, hidden_size=hidden).graph
    count = Counter(n.op_type for n in graph)
    assert (count["Transpose"], count["MatMul"]) == (2, 1 + 2 * steps)
    columns = [n.inputs[1].shape[1] for n in graph if n.op_type == "MatMul"]
    assert sorted(columns[1:]) == [hidden] * steps + [2 * hidden] * steps


@pytest.mark.parametrize(("inputs", "inverse", "onesided"), [(1, 0, 1), (2, 0, 0), (2, 1, 0)])
def test_a_fourier_transform_has_two_matrices(inputs: int, inverse: int, onesided: int) -> None:
    model = spelled("DFT", [2, 8, inputs], inverse=inverse, onesided=onesided)
    tensors = [ir.convenience.get_const_tensor(n.outputs[0]) for n in model.graph]
    assert sum(t is not None and len(t.shape) == 2 for t in tensors) == 2


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [("DFT", [[1, 2049, 1]]), ("RNN", [[1001, 1, 2], [1, 3, 2], [1, 3, 3]])],
)
def test_what_is_too_long_to_be_written_out_is_named(
    operator: str, shapes: list[list[int]]
) -> None:
    with pytest.raises(SourceError, match=rf"{operator} 'long' .*(2049|1001).* too "):
        spelled(operator, *shapes)


def test_a_deformable_convolution_of_other_than_images_is_named() -> None:
    shapes = [1, 2, 4, 4, 4], [3, 2, 1, 1, 1], [1, 3, 4, 4, 4]
    with pytest.raises(SourceError, match="DeformConv 'long' is over 3 axes"):
        spelled("DeformConv", *shapes)


def test_a_running_product_of_too_many_is_named(tmp_path: Path) -> None:
    nodes = [
        node("Expand", ["x", "wide"], ["many"]),
        node("CumProd", ["many", "axis"], ["products"], name="long"),
        node("ReduceMean", ["products", "axis"], ["h"]),
    ]
    weights = {"wide": np.array([1001, 1, 1, 1, 1]), "axis": np.array(0)}
    with pytest.raises(SourceError, match="CumProd 'long' has 1001 rounds, too many"):
        explain(newer(tmp_path / "c.onnx", 26, *nodes, **weights), X)


def test_an_operator_that_opset_20_has_no_spelling_for_is_named(tmp_path: Path) -> None:
    bits = node("BitCast", ["x"], ["b"], name="bits", to=onnx.TensorProto.INT32)
    cast = node("Cast", ["b"], ["h"], to=onnx.TensorProto.FLOAT)
    path = newer(tmp_path / "b.onnx", 26, bits, cast)
    with pytest.raises(SourceError, match=r"BitCast.*bits"):
        explain(path, X)


def contrib(path: Path, *nodes: onnx.NodeProto, **weights: Any) -> Path:
    tail, weight = head("h", 3 * 36)
    return write(
        path,
        [*nodes, *tail],
        weights | weight,
        ("N", 3, 6, 6),
        opset=17,
        domains=["com.microsoft"],
    )


def own(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, domain="com.microsoft", **attributes)


CONTRIB: dict[str, list[onnx.NodeProto]] = {
    "Gelu": [own("Gelu", ["x"], ["h"])],
    "FastGelu": [own("FastGelu", ["x", "six"], ["h"])],
    "BiasGelu": [own("BiasGelu", ["x", "six"], ["h"])],
    "QuickGelu": [own("QuickGelu", ["x"], ["h"], alpha=1.5)],
    "SkipLayerNormalization": [
        node("Reshape", ["x", "to_rows"], ["rows"]),
        own("SkipLayerNormalization", ["rows", "rows", "six", "six", "six"], ["n", "", "", "sum"]),
        node("Add", ["n", "sum"], ["h"]),
    ],
    "FusedMatMul": [own("FusedMatMul", ["x", "square"], ["h"], transB=1, alpha=0.7)],
    "FusedMatMul behind another": [
        own("FusedMatMul", ["x", "square"], ["a"], transB=1),
        node("Relu", ["a"], ["b"]),
        own("FusedMatMul", ["b", "b"], ["h"], transA=1, alpha=0.1),
    ],
    "SimplifiedLayerNormalization": [
        own("FusedMatMul", ["x", "square"], ["a"]),
        node("SimplifiedLayerNormalization", ["a", "six"], ["h"], axis=3),
    ],
    "FusedConv": [
        own("FusedConv", ["x", "kernel"], ["c"], activation="Relu", pads=[1] * 4),
        own("FusedConv", ["c", "kernel", "three", "x"], ["d"], activation="Relu", pads=[1] * 4),
        own("FusedConv", ["d", "kernel"], ["h"], activation="Clip", activation_params=[-1.0, 2.0],
            pads=[1] * 4),
    ],
    "FusedGemm": [
        node("Reshape", ["x", "to_matrix"], ["matrix"]),
        own("FusedGemm", ["matrix", "wide", "b108"], ["g"], activation="LeakyRelu",
            activation_alpha=0.1),
        node("Identity", ["g"], ["h"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRIB)
def test_onnx_runtimes_own_operators(name: str, tmp_path: Path) -> None:
    every = {
        "six": images(6, seed=1),
        "three": images(3, seed=2),
        "square": images(6, 6, seed=3),
        "kernel": images(3, 3, 3, 3, seed=4) / 6,
        "to_rows": np.array([0, 18, 6]),
        "to_matrix": np.array([0, 108]),
        "wide": images(108, 108, seed=5) / 12,
        "b108": images(108, seed=6),
    }
    used = {n for made in CONTRIB[name] for n in made.input}
    weights = {key: value for key, value in every.items() if key in used}
    path = contrib(tmp_path / "contrib.onnx", *CONTRIB[name], **weights)
    same_logits(path, X)


def test_a_layer_normalization_older_than_opset_17(tmp_path: Path) -> None:
    norm = node("LayerNormalization", ["x", "s", "b"], ["h"], axis=-1)
    tail, weight = head("h", 3 * 36)
    weights = {"s": images(6, seed=1), "b": images(6, seed=2)} | weight
    shape = ("N", 3, 6, 6)
    path = write(tmp_path / "ln.onnx", [norm, *tail], weights, shape, opset=12)
    same_logits(path, X)


@pytest.mark.parametrize("domain", ["com.microsoft", "com.microsoft.nchwc"])
def test_other_operators_of_an_optimised_file_say_what_to_export(
    domain: str, tmp_path: Path
) -> None:
    fused = helper.make_node("Mystery", ["x"], ["h"], domain=domain, name="fused_1")
    tail, weight = head("h", 3 * 36)
    path = tmp_path / "optimised.onnx"
    write(path, [fused, *tail], weight, ("N", 3, 6, 6), domains=[domain])
    with pytest.raises(NoRuleError, match=r"Mystery.*fused_1.*before"):
        explain(path, X)
