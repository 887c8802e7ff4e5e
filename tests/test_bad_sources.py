"""What cannot be exported ends in a sentence that names the cause and the next step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import onnxplain
from onnxplain.errors import InputError, NoRuleError, SourceError
from onnxplain.export.operators import OPERATORS, Operator

FLOAT = TensorProto.FLOAT


def classifier(
    path: Path,
    nodes: list[onnx.NodeProto] | None = None,
    inputs: dict[str, list[int | str]] | None = None,
    outputs: dict[str, list[int | str]] | None = None,
    opsets: dict[str, int] | None = None,
) -> Path:
    """A file with a global pool and a linear layer, or with the nodes given before them."""
    nodes = nodes or [helper.make_node("Identity", ["x"], ["h"])]
    weight = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "W")
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        *nodes,
        helper.make_node("ReduceMean", ["h", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "W"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [
            helper.make_tensor_value_info(name, FLOAT, shape)
            for name, shape in (inputs or {"x": ["N", 3, 8, 8]}).items()
        ],
        [
            helper.make_tensor_value_info(name, FLOAT, shape)
            for name, shape in (outputs or {"y": ["N", 4]}).items()
        ],
        [weight, axes],
    )
    imports = [helper.make_opsetid(d, v) for d, v in (opsets or {"": 20}).items()]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.onnx"


def test_no_such_file(tmp_path: Path, out: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        onnxplain.export(tmp_path / "missing.onnx", out)


def test_a_name_that_is_neither_file_nor_network(out: Path) -> None:
    with pytest.raises(SourceError, match=r"neither a file.*resnet50"):
        onnxplain.export("resnet5000", out)


def test_a_file_that_is_not_onnx(tmp_path: Path, out: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a network\n" * 100)
    with pytest.raises(SourceError, match=r"not a readable ONNX model|no ONNX graph"):
        onnxplain.export(text, out)


def test_an_empty_file(tmp_path: Path, out: Path) -> None:
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(SourceError, match="no ONNX graph"):
        onnxplain.export(empty, out)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_onnx(share: float, lite0_forward: Path, tmp_path: Path, out: Path) -> None:
    whole = lite0_forward.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SourceError, match=r"cut\.onnx"):
        onnxplain.export(cut, out)
    assert not out.exists()


def test_an_operator_without_a_rule_is_named_with_the_way_to_give_it_one(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATORS, "Asinh", Operator())
    path = classifier(tmp_path / "a.onnx", [helper.make_node("Asinh", ["x"], ["h"], name="one")])
    with pytest.raises(NoRuleError, match=r"Asinh.*'one'.*register_vjp\(.Asinh"):
        onnxplain.export(path, out)


def test_an_operator_of_a_foreign_domain_is_named_with_its_domain(
    tmp_path: Path, out: Path
) -> None:
    node = helper.make_node("Fancy", ["x"], ["h"], name="fancy_1", domain="com.acme")
    path = classifier(tmp_path / "fancy.onnx", [node], opsets={"": 20, "com.acme": 1})
    with pytest.raises(SourceError, match=r"Fancy|rank"):
        onnxplain.export(path, out)


def test_no_image_like_input(tmp_path: Path, out: Path) -> None:
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["h"])]
    path = classifier(tmp_path / "flat.onnx", nodes, inputs={"x": ["N", 3], "z": ["N", 3]})
    with pytest.raises(SourceError, match=r"no image-like input.*x FLOAT"):
        onnxplain.export(path, out)


def test_several_image_inputs_say_which_to_pass(tmp_path: Path, out: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["h"])]
    shape: list[int | str] = ["N", 3, 8, 8]
    path = classifier(tmp_path / "two.onnx", nodes, inputs={"x": shape, "z": shape})
    with pytest.raises(SourceError, match=r"input=.*x FLOAT.*z FLOAT"):
        onnxplain.export(path, out)
    with pytest.raises(SourceError, match=r"depend on z besides 'x'"):
        onnxplain.export(path, out, input="x")
    with pytest.raises(SourceError, match="no input 'w'"):
        onnxplain.export(path, out, input="w")


def test_an_input_that_the_logits_do_not_need_is_dropped(tmp_path: Path, out: Path) -> None:
    shape: list[int | str] = ["N", 3, 8, 8]
    path = classifier(tmp_path / "spare.onnx", inputs={"x": shape, "z": shape})
    onnxplain.export(path, out, input="x")
    assert [value.name for value in onnx.load(out).graph.input] == ["image", "target"]


def test_several_outputs_say_which_to_pass(tmp_path: Path, out: Path) -> None:
    path = classifier(tmp_path / "heads.onnx", outputs={"y": ["N", 4], "m": ["N", 3]})
    with pytest.raises(SourceError, match="output=: y, m"):
        onnxplain.export(path, out)
    onnxplain.export(path, out, output="m")
    assert onnx.load(out).graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_an_output_that_is_no_logits(tmp_path: Path, out: Path) -> None:
    path = classifier(tmp_path / "map.onnx", outputs={"h": ["N", 3, 8, 8]})
    with pytest.raises(SourceError, match=r"not \[N, classes\]"):
        onnxplain.export(path, out, objective="logit")


def test_an_output_that_does_not_depend_on_the_image(tmp_path: Path, out: Path) -> None:
    constant = onnx.numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32))
    nodes = [helper.make_node("Constant", [], ["h"], value=constant)]
    path = classifier(tmp_path / "constant.onnx", nodes, outputs={"y": [1, 4]})
    with pytest.raises(SourceError, match="does not depend on"):
        onnxplain.export(path, out)


def test_an_open_image_size_asks_for_one(tmp_path: Path, out: Path) -> None:
    path = classifier(tmp_path / "open.onnx", inputs={"x": ["N", 3, "H", "W"]})
    with pytest.raises(SourceError, match="size="):
        onnxplain.export(path, out)
    assert onnxplain.export(path, out, size=(24, 32)).preprocessing.width == 32


def test_a_size_other_than_the_fixed_one(tmp_path: Path, out: Path) -> None:
    with pytest.raises(SourceError, match="fixed at"):
        onnxplain.export(classifier(tmp_path / "fixed.onnx"), out, size=9)


def test_a_final_softmax_is_explained_at_its_input(tmp_path: Path, out: Path) -> None:
    path = classifier(tmp_path / "plain.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["p"]))
    model.graph.output[0].name = "p"
    onnx.save(model, path)
    onnxplain.export(path, out, method="gradient")
    image = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    explanation = onnxplain.load(out)(image, [0, 3])
    np.testing.assert_allclose(explanation.logits, image.mean((2, 3)) @ np.ones((3, 4)), rtol=1e-5)
    np.testing.assert_allclose(explanation.pullback, 1 / 64, rtol=1e-5)


def test_an_output_path_equal_to_the_input_is_refused(tmp_path: Path) -> None:
    path = classifier(tmp_path / "same.onnx")
    before = path.read_bytes()
    with pytest.raises(InputError, match="source itself"):
        onnxplain.export(path, path)
    assert path.read_bytes() == before


def test_an_output_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        onnxplain.export(classifier(tmp_path / "c.onnx"), tmp_path / "no" / "out.onnx")


def test_an_output_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        onnxplain.export(classifier(tmp_path / "c.onnx"), tmp_path)


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.write_bytes(b"the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        onnxplain.export(classifier(tmp_path / "c.onnx"), out)
    assert out.read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.onnx", "out.onnx"]


@pytest.mark.parametrize("moment", ["before", "within"])
def test_an_interrupted_export_leaves_no_half_written_file(
    moment: str, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        if moment == "within":
            write(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    source = classifier(tmp_path / "c.onnx")
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        onnxplain.export(source, out)
    assert list(tmp_path.iterdir()) == [source]


def test_a_folder_that_must_not_be_written(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="no permission"):
        onnxplain.export(classifier(tmp_path / "c.onnx"), out)


class TestExternalData:
    """Weights in a file beside the graph, as `torch.onnx.export` writes them."""

    def save(self, folder: Path, opset: int) -> Path:
        path = classifier(folder / "c.onnx", opsets={"": opset})
        model = onnx.load(path)
        onnx.save_model(
            model, path, save_as_external_data=True, location="c.onnx.data", size_threshold=0
        )
        return path

    @pytest.mark.parametrize("opset", [18, 20])
    def test_the_explain_graph_holds_the_weights(self, opset: int, tmp_path: Path) -> None:
        source, out = self.save(tmp_path, opset), tmp_path / "elsewhere" / "out.onnx"
        out.parent.mkdir()
        onnxplain.export(source, out, method="gradient")
        (tmp_path / "c.onnx.data").unlink()
        explanation = onnxplain.load(out)(np.ones((1, 3, 8, 8), np.float32))
        np.testing.assert_allclose(explanation.logits, 3.0)

    def test_missing_data_are_told(self, tmp_path: Path, out: Path) -> None:
        source = self.save(tmp_path, 20)
        (tmp_path / "c.onnx.data").unlink()
        with pytest.raises(SourceError, match="external data"):
            onnxplain.export(source, out)


def test_a_value_captured_by_a_subgraph_is_no_silent_zero(tmp_path: Path, out: Path) -> None:
    def branch(name: str, factor: float) -> onnx.GraphProto:
        scale = onnx.numpy_helper.from_array(np.float32(factor), f"{name}_by")
        node = helper.make_node("Mul", ["x", f"{name}_by"], [name])
        info = helper.make_tensor_value_info(name, FLOAT, ["N", 3, 8, 8])
        return helper.make_graph([node], name, [], [info], [scale])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "s"], ["c"]),
        helper.make_node(
            "If", ["c"], ["z"], then_branch=branch("a", 3.0), else_branch=branch("b", 2.0)
        ),
        helper.make_node("Add", ["x", "z"], ["h"]),
    ]
    onnxplain.export(classifier(tmp_path / "if.onnx", nodes), out, method="gradient")
    found = onnxplain.load(out)(np.ones((1, 3, 8, 8), np.float32), 1).pullback
    np.testing.assert_allclose(found, (1 + 2) / 64, rtol=1e-5)


def test_a_path_quantised_by_the_image_itself_is_no_silent_zero(tmp_path: Path, out: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["scale"], keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["h"]),
    ]
    with pytest.raises(NoRuleError, match=r"operator QuantizeLinear with respect to its input 1"):
        onnxplain.export(classifier(tmp_path / "qdq.onnx", nodes), out)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node(
            "BatchNormalization", ["x", *["ones"] * 4], ["h", "mean", "var"], training_mode=1
        ),
        helper.make_node("Dropout", ["x", "", "yes"], ["h"]),
    ],
)
def test_training_mode_is_refused(node: onnx.NodeProto, tmp_path: Path, out: Path) -> None:
    ones = onnx.numpy_helper.from_array(np.ones(3, np.float32))
    constants = [
        helper.make_node("Constant", [], ["ones"], value=ones),
        helper.make_node("Constant", [], ["yes"], value=onnx.numpy_helper.from_array(np.bool_(1))),
    ]
    with pytest.raises(NoRuleError, match="training mode"):
        onnxplain.export(classifier(tmp_path / "t.onnx", [*constants, node]), out)


@pytest.mark.parametrize(
    ("head", "activation"),
    [
        ([helper.make_node("Sigmoid", ["y"], ["p"])], "sigmoid"),
        ([helper.make_node("Softmax", ["y"], ["p"], axis=1)], "softmax"),
        (
            [
                helper.make_node("Softmax", ["y"], ["s"], axis=-1),
                helper.make_node("Cast", ["s"], ["p"], to=FLOAT),
            ],
            "softmax",
        ),
    ],
)
def test_a_final_activation_is_recorded_and_gives_the_probabilities(
    head: list[onnx.NodeProto], activation: str, tmp_path: Path, out: Path
) -> None:
    path = classifier(tmp_path / "plain.onnx")
    model = onnx.load(path)
    model.graph.node.extend(head)
    model.graph.output[0].name = "p"
    onnx.save(model, path)
    assert onnxplain.export(path, out).activation == activation
    explanation = onnxplain.load(out)(np.full((1, 3, 8, 8), 0.5, np.float32))
    np.testing.assert_allclose(explanation.logits, 1.5, rtol=1e-5)
    expected = 1 / (1 + np.exp(-1.5)) if activation == "sigmoid" else 0.25
    np.testing.assert_allclose(explanation.probabilities, expected, rtol=1e-5)


def test_a_softmax_over_another_axis_is_kept(tmp_path: Path, out: Path) -> None:
    path = classifier(tmp_path / "plain.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["p"], axis=0))
    model.graph.output[0].name = "p"
    onnx.save(model, path)
    onnxplain.export(path, out, method="gradient")
    explanation = onnxplain.load(out)(np.ones((1, 3, 8, 8), np.float32))
    np.testing.assert_allclose(explanation.logits, 1.0)  # of one image: exp / exp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "no method 'magic'.*excitation"),
        ({"method": "exitation"}, "no method 'exitation'; did you mean excitation\\?.*semantic"),
        ({"temperature": 0.0}, "positive"),
        ({"temperature": float("nan")}, "positive"),
        ({"method": "gradient", "temperature": 1.0}, "has no temperature"),
        ({"method": "gradient", "live_temperature": True}, "no temperature"),
        ({"labels": ["a", "b"]}, "2 labels for 4 classes"),
        ({"mean": [0.5]}, "1 and 3 entries"),
        ({"std": [0.2, 0.0, 0.2]}, "std positive"),
        ({"weights": "none"}, "network by name"),
        ({"step": True, "unroll": 2}, "choose one"),
        ({"step": True, "multi_target": True}, "multi_target"),
        ({"unroll": 0}, "at least one step"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, object], message: str, tmp_path: Path, out: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(classifier(tmp_path / "c.onnx"), out, **options)
    assert not out.exists()


def test_a_module_without_an_example(out: Path) -> None:
    with pytest.raises(SourceError, match="example"):
        onnxplain.export(torch.nn.Flatten(), out)


def test_a_module_that_cannot_be_traced(out: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum((2, 3)) if x.sum() > 0 else x.mean((2, 3))

    with pytest.raises(SourceError, match="could not export Untraceable"):
        onnxplain.export(Untraceable(), out, example=torch.zeros(1, 3, 8, 8))


class TestCheckpoints:
    def network(self) -> torch.nn.Module:
        from onnxplain.export.sources.source import torch_network

        return torch_network("squeezenet1_1", "none").module

    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_a_checkpoint_loads_with_or_without_prefix_and_wrapper(
        self, prefix: str, wrap, tmp_path: Path
    ) -> None:
        from onnxplain.export.sources.source import torch_network

        torch.manual_seed(5)
        module = self.network()
        torch.nn.init.normal_(module.classifier[1].weight)
        state = {prefix + key: value for key, value in module.state_dict().items()}
        torch.save(wrap(state), tmp_path / "c.pth")
        loaded = torch_network("squeezenet1_1", str(tmp_path / "c.pth")).module
        assert torch.equal(loaded.classifier[1].weight, module.classifier[1].weight)

    def test_a_missing_checkpoint(self, out: Path) -> None:
        with pytest.raises(SourceError, match="no such checkpoint"):
            onnxplain.export("squeezenet1_1", out, weights="nowhere.pth")

    def test_a_file_that_is_no_checkpoint(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "bad.pth").write_bytes(b"nothing of the kind")
        with pytest.raises(SourceError, match="not a PyTorch checkpoint"):
            onnxplain.export("squeezenet1_1", out, weights=str(tmp_path / "bad.pth"))

    def test_a_checkpoint_of_another_network(self, tmp_path: Path, out: Path) -> None:
        torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
        with pytest.raises(SourceError, match="does not fit"):
            onnxplain.export("squeezenet1_1", out, weights=str(tmp_path / "other.pth"))

    def test_weights_out_of_reach_say_what_to_pass(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import urllib.error

        def unreachable(*_: object, **__: object) -> None:
            raise urllib.error.URLError("no route")

        monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(SourceError, match=r"weights=PATH.*weights='none'"):
            onnxplain.export("squeezenet1_1", out)


def test_an_image_without_channels_is_an_error_of_ours(tmp_path: Path, out: Path) -> None:
    """Found by mutation: whatever a graph leads a stage to is said of the network."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0)]
    nodes += [helper.make_node("Expand", ["s", "shape"], ["h"])]
    path = classifier(tmp_path / "none.onnx", nodes, inputs={"x": ["N", 0, 8, 8]})
    model = onnx.load(path)
    shape = onnx.numpy_helper.from_array(np.array([2, 3, 8, 8]), "shape")
    model.graph.initializer.append(shape)
    onnx.save(model, path)
    with pytest.raises(SourceError):
        onnxplain.export(path, out)
    assert not out.exists()
