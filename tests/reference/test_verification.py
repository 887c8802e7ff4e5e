"""`onnxplain.verify`: every method of every kind of source, and graphs that say what is not so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import InputError
from onnxplain.export import METHODS
from onnxplain.reference import against_source
from onnxplain.reference.answers import Answer, of_graph
from onnxplain.reference.derivatives import STEPPED

SIZE = (20, 24)
MAPS = [name for name, method in METHODS.items() if method.makes_maps]
ALIKE = {"lrp-epsilon-plus", "lrp-epsilon-plus-flat", "lrp-epsilon-alpha2-beta1"}
"""Of whose rules others are made."""

OF_ANY = [n for n, method in METHODS.items() if method.attention_map is None and n not in ALIKE]
"""The methods for networks without attention, but for those."""


class Net(nn.Module):
    """Batch norms, a residual sum, a max-pool, a gate, a ReLU used twice and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)
        self.squeeze, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.relu(x + self.block(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = functional.adaptive_avg_pool2d(torch.tanh(x), 1)  # tanh: the gradient varies by place
        return self.head(torch.flatten(x, 1))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    made = Net()
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(std=0.1)
            assert norm.running_mean is not None
            norm.running_mean.normal_(std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def file(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as an ONNX file, which knows its modules."""
    path = tmp_path_factory.mktemp("source") / "net.onnx"
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(net, (torch.zeros(2, 3, *SIZE),), path, dynamic_shapes=batch, verbose=False)
    return path


def exported(source: Any, path: Path, method: str, **options: Any) -> Path:
    layer = {"layer": "relu"} if method in MAPS else {}
    onnxplain.export(source, path, size=SIZE, method=method, **layer | options)
    return path


def relabelled(path: Path, **entries: Any) -> Path:
    """The same graph with other metadata."""
    model = onnx.load(path)
    for prop in model.metadata_props:
        key = prop.key.removeprefix("onnxplain.")
        if key in entries:
            value = entries[key]
            prop.value = value if isinstance(value, str) else json.dumps(value)
    onnx.save(model, path.with_suffix(".wrong.onnx"))
    return path.with_suffix(".wrong.onnx")


def shifted(path: Path, by: float) -> Path:
    """The same graph with every logit larger by the same, which no softmax shows."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["unshifted" if name == "logits" else name for name in names]
    graph.initializer.append(onnx.helper.make_tensor("by", onnx.TensorProto.FLOAT, [], [by]))
    graph.node.append(onnx.helper.make_node("Add", ["unshifted", "by"], ["logits"]))
    onnx.save(model, path.with_suffix(".shifted.onnx"))
    return path.with_suffix(".shifted.onnx")


OTHERWISE: dict[str, dict[str, Any]] = {
    "excitation": {"parameters": {"temperature": 0.31}},
    "semantic": {"parameters": {"temperature": 1.05}},
    "gradient": {"method": "guided"},
    "guided": {"method": "gradient"},
    "deconvnet": {"method": "guided"},
    "input-x-gradient": {"method": "gradient"},
    "gradcam": {"method": "layercam"},
    "gradcam++": {"method": "gradcam"},
    "xgradcam": {"method": "layercam"},
    "layercam": {"method": "hirescam"},
    "hirescam": {"parameters": {"layer": "pool"}},
    "eigencam": {"method": "eigengradcam"},
    "eigengradcam": {"method": "eigencam"},
    "scorecam": {"method": "ablationcam"},
    "ablationcam": {"method": "scorecam"},
    "guided-gradcam": {"method": "deconvnet*gradcam"},
    "lrp-zplus": {"parameters": {"epsilon": 1e-2}},
    "lrp-epsilon": {"parameters": {"epsilon": 1e-2}},
    "epsilon-plus": {"parameters": {"epsilon": 1e-2}},
    "lrp-epsilon-gamma-box": {"parameters": {"gamma": 1.0}},
    "lrp-epsilon-alpha2-beta1-flat": {"method": "lrp-epsilon-alpha2-beta1"},
    "attn-lrp": {"method": "cp-lrp"},
    "cp-lrp": {"method": "attn-lrp"},
}
"""What a file of each method says that is not so."""


@pytest.mark.parametrize("method", OF_ANY)
def test_a_right_graph_of_a_module_passes_and_one_that_says_otherwise_fails(
    method: str, net: Net, tmp_path: Path
) -> None:
    path = exported(net, tmp_path / "x.onnx", method)
    found = onnxplain.verify(path, net, provider="cpu")
    assert found.passed
    assert found.against == "against PyTorch in float64"
    assert [check.what for check in found.checks] == ["logits", "pullback"]
    wrong = onnxplain.verify(relabelled(path, **OTHERWISE[method]), net, provider="cpu")
    assert [check.passed for check in wrong.checks if check.what == "logits"] == [True]
    assert not wrong.passed


@pytest.mark.parametrize("method", OF_ANY)
def test_a_right_graph_of_an_onnx_file_passes_and_one_that_says_otherwise_fails(
    method: str, file: Path, tmp_path: Path
) -> None:
    path = exported(file, tmp_path / "x.onnx", method)
    found = onnxplain.verify(path, file, provider="cpu")
    assert found.passed
    assert found.against.startswith("against a fresh derivation in float64")
    along = ["along the pullback", "along noise"] if method == "gradient" else []
    assert [check.what for check in found.checks] == ["logits", "pullback", *along]
    assert not onnxplain.verify(relabelled(path, **OTHERWISE[method]), file, provider="cpu").passed


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("method", ["gradient", "excitation", "gradcam", "lrp-zplus"])
@pytest.mark.parametrize("kind", [".pt2", ".pt"])
def test_programs_pass_and_fail_likewise(kind: str, method: str, net: Net, tmp_path: Path) -> None:
    source, example = tmp_path / f"net{kind}", torch.zeros(2, 3, *SIZE)
    if kind == ".pt2":
        program = torch.export.export(
            net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, source)
    else:
        torch.jit.trace(net, example).save(source)
    options = {"layer": "block" if kind == ".pt2" else None} if method == "gradcam" else {}
    path = exported(source, tmp_path / "x.onnx", method, **options)
    found = onnxplain.verify(path, source, provider="cpu")
    assert found.passed
    in_pytorch = method == "gradient" or (kind == ".pt2" and method != "lrp-zplus")
    assert (found.against == "against PyTorch in float64") == in_pytorch
    entries = {"method": "layercam"} if method == "gradcam" else OTHERWISE[method]
    assert not onnxplain.verify(relabelled(path, **entries), source, provider="cpu").passed


def test_a_folder_of_a_hugging_face_classifier(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=16, patch_size=8, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    for method in ("semantic", "lrp-zplus"):
        onnxplain.export(tmp_path / "vit", tmp_path / "x.onnx", method=method)
        found = onnxplain.verify(tmp_path / "x.onnx", tmp_path / "vit", provider="cpu")
        assert found.passed, found
        assert found.against == "against PyTorch in float64"


def test_several_targets_and_a_live_temperature(net: Net, tmp_path: Path) -> None:
    path = exported(
        net, tmp_path / "x.onnx", "excitation", multi_target=True, live_temperature=True
    )
    assert onnxplain.verify(path, net, provider="cpu").passed


def test_other_weights_show_in_the_logits(net: Net, tmp_path: Path) -> None:
    path = exported(net, tmp_path / "x.onnx", "gradient")
    torch.manual_seed(1)
    found = onnxplain.verify(path, Net().eval(), provider="cpu")
    assert not found.checks[0].passed


def test_a_final_softmax_is_left_out_as_the_export_does(
    net: Net, file: Path, tmp_path: Path
) -> None:
    ended = nn.Sequential(net, nn.Softmax(dim=1)).eval()
    path = exported(ended, tmp_path / "x.onnx", "semantic")
    assert onnxplain.verify(path, ended, provider="cpu").passed
    model = onnx.load(file)
    model.graph.node.append(
        onnx.helper.make_node("Softmax", [model.graph.output[0].name], ["probabilities"])
    )
    model.graph.output[0].name = "probabilities"
    onnx.save(model, tmp_path / "ended.onnx")
    path = exported(tmp_path / "ended.onnx", tmp_path / "y.onnx", "gradient")
    assert onnxplain.verify(path, tmp_path / "ended.onnx", provider="cpu").passed
    found = onnxplain.verify(shifted(path, 3.0), tmp_path / "ended.onnx", provider="cpu")
    assert {check.what: check.passed for check in found.checks}["logits"] is False


def test_a_layer_that_the_export_chose_and_the_source_has_no_name_for(
    net: Net, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    metadata = onnxplain.export(net, path, size=SIZE, method="gradcam")
    assert metadata.parameters["layer"] not in dict(net.named_modules())
    found = onnxplain.verify(path, net, provider="cpu")
    assert found.passed
    assert "no submodule" in found.against


def test_what_a_fold_gets_wrong_in_the_pullback_alone_is_seen(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh derivation that folded alike would be wrong alike."""

    def folded(op: Any, image: ir.Value, outputs: Any) -> None:
        gate = next(node for node in op.builder.graph if node.op_type == "Sigmoid")
        gate.replace_input_with(0, op.Mul(gate.inputs[0], 1.1))

    path = exported(file, tmp_path / "right.onnx", "excitation", temperature=0.5)
    assert onnxplain.verify(path, file, provider="cpu").passed
    monkeypatch.setattr("onnxplain.export.backward.fold_temperatures", folded)
    path = exported(file, tmp_path / "wrong.onnx", "excitation", temperature=0.5)
    found = onnxplain.verify(path, file, provider="cpu")
    assert {check.what: check.passed for check in found.checks}["logits"]
    assert not found.passed


FLOWS = {
    "If": """h = If (bright) <
        then_branch = p () => (float[N, 3, 5, 5] u) { u = Mul (z, x) },
        else_branch = q () => (float[N, 3, 5, 5] u) { u = Sin (z) }>""",
    "Loop": """count = Cast <to = 7> (bright)
    n = Add (count, count)
    h = Loop (n, , z) <
        body = b (int64 i, bool c, float[] s) => (bool d, float[] t) {
            d = Identity (c)
            m = Mul (s, x)
            t = Tanh (m)
        }>""",
}


@pytest.mark.parametrize("flow", FLOWS)
def test_what_the_image_decides(flow: str, tmp_path: Path) -> None:
    text = f"""<ir_version: 9, opset_import: ["": 20]>
    g (float[N, 3, 5, 5] x) => (float[N, 75] y) {{
        z = Exp (x)
        norm = ReduceL2 <keepdims = 0> (x)
        one = Constant <value = float {{1.0}}> ()
        bright = Greater (norm, one)
        {FLOWS[flow]}
        y = Flatten (h)
    }}"""
    source, path = tmp_path / "source.onnx", tmp_path / "explain.onnx"
    onnx.save(onnx.parser.parse_model(text), source)
    onnxplain.export(source, path, method="gradient")
    found = onnxplain.verify(path, source, provider="cpu")
    assert found.passed, found
    assert "fresh derivation in float64" in str(found)
    wrong = onnxplain.verify(shifted(path, 0.1), source, provider="cpu")
    assert not wrong.passed


def test_a_programs_operation_goes_before_a_module_of_its_name(net: Net, tmp_path: Path) -> None:
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.zeros(2, 3, *SIZE),), dynamic_shapes=batch)
    path = exported(program, tmp_path / "x.onnx", "gradcam", layer="relu")
    assert onnxplain.verify(path, program, provider="cpu").passed


def test_what_misses_the_tolerance_in_float32_is_looked_at_again_in_float64(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_source, "TOLERANCE", 1e-12)
    path = exported(net, tmp_path / "x.onnx", "guided")
    found = onnxplain.verify(path, net, provider="cpu")
    assert [check.what for check in found.checks[1:]] == [
        "pullback",
        "pullback, the file in float64",
    ]
    assert all(check.passed for check in found.checks[1:])
    wrong = onnxplain.verify(relabelled(path, method="gradient"), net, provider="cpu")
    assert not wrong.checks[-1].passed


def test_a_tolerance_is_the_only_bound(net: Net, tmp_path: Path) -> None:
    path = exported(net, tmp_path / "x.onnx", "gradient")
    found = onnxplain.verify(path, net, provider="cpu", tolerance=1e-12)
    assert [check.what for check in found.checks] == ["logits", "pullback"]
    assert not found.passed


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with quantisers, as small as can be."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        network (float[N, 3, 8, 8] image) => (float[N, 4] logits)
            <float s = {0.05}, int8 zero = {0}, int64[2] axes = {2, 3}> {
            q = QuantizeLinear (image, s, zero)
            x = DequantizeLinear (q, s, zero)
            z = Conv (x, w)
            y = Relu (z)
            logits = ReduceMean <keepdims = 0> (y, axes)
        }
    """)
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    path = tmp_path_factory.mktemp("quantised") / "int8.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("method", "otherwise"),
    [("gradient", {"method": "deconvnet"}), ("excitation", OTHERWISE["excitation"])],
)
def test_a_quantised_graph_is_right_where_its_file_is_in_float64(
    method: str,
    otherwise: dict[str, Any],
    quantised: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 another integer may be the nearest, here and there; slopes there are none."""
    path = tmp_path / "x.onnx"
    onnxplain.export(quantised, path, method=method)
    found = onnxplain.verify(path, quantised, provider="cpu")
    assert found.passed
    assert not any(check.what.startswith("along") for check in found.checks)
    assert found.notes == ((STEPPED,) if method == "gradient" else ())

    def rounded(*given: Any) -> Answer:
        answer = of_graph(*given)
        return Answer(answer.logits + 3e-2 * answer.logits.std(), answer.pullback * 1.01)

    monkeypatch.setattr(against_source, "of_graph", rounded)
    assert onnxplain.verify(path, quantised, provider="cpu").passed
    wrong = relabelled(path, **otherwise)
    assert not onnxplain.verify(wrong, quantised, provider="cpu").passed
    assert not onnxplain.verify(shifted(path, 0.1), quantised, provider="cpu").passed


def test_a_quantised_gradient_has_no_finite_differences(quantised: Path, tmp_path: Path) -> None:
    onnxplain.export(quantised, tmp_path / "x.onnx", method="gradient")
    with pytest.raises(InputError, match=r"rises in steps.* with source="):
        onnxplain.verify(tmp_path / "x.onnx", provider="cpu")


def test_without_a_source_it_says_what_it_needs(net: Net, tmp_path: Path) -> None:
    path = exported(net, tmp_path / "x.onnx", "gradcam")
    with pytest.raises(InputError, match="source="):
        onnxplain.verify(path, provider="cpu")
    with pytest.raises(InputError, match="one precision"):
        onnxplain.verify(path, net, precision="auto")


def test_the_command_checks_a_map_of_a_file(file: Path, tmp_path: Path) -> None:
    path = exported(file, tmp_path / "x.onnx", "layercam")
    arguments = ["verify", str(path), "--source", str(file), "--provider", "cpu"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "fresh derivation" in shown.output
    arguments[1] = str(relabelled(path, method="hirescam"))
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert "WRONG" in shown.output
