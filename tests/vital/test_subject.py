"""What is read of a network to be visualised: its layers and its neuron, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE
from onnxplain.contract.steps import StepMetadata
from onnxplain.errors import SourceError
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions import open_session
from onnxplain.vital.graphs.channels import write_channels
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import OBJECTIVES, write_step
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.recipes import recipe_of

SIZE, CLASSES = 16, 5


class Net(nn.Module):
    """Three stages, of which the pooling is one module, called twice; probabilities at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(a, b, 3, 1, 1) for a, b in ((3, 6), (6, 8), (8, 10))
        )
        self.act, self.pool = nn.SiLU(), nn.MaxPool2d(2)
        self.fc, self.last = nn.Linear(10, CLASSES), nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        x = self.conv3(x).relu()
        return self.last(self.fc(nn.functional.max_pool2d(x, 2).mean((2, 3))))


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture(scope="module")
def example() -> Tensor:
    return torch.zeros(1, 3, SIZE, SIZE)


LAYERS = ("conv1", "conv2", "conv3")


def test_a_neuron_of_the_logits_layer_is_the_class_s(
    net: Net, example: Tensor, tmp_path: Path
) -> None:
    subject = read_subject(net, example=example, layers=LAYERS, neuron="fc")
    assert (subject.neurons(), subject.neuron) == (CLASSES, ("logits", "fc"))
    path = tmp_path / "channels.onnx"
    write_channels(subject, path, logits=True)
    image = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    found = open_session(path, "cpu").run({IMAGE: image})
    np.testing.assert_array_equal(found["maximum_0"], found["logits"])
    np.testing.assert_array_equal(found["mean_0"], found["logits"])
    path = tmp_path / "features.onnx"
    write_features(subject, path)
    features = open_session(path, "cpu").run({IMAGE: image, steps.CHANNEL: np.array([1, 3])})
    assert all(features[steps.quantity(i)].any() for i in range(3))
    for objective in OBJECTIVES:
        write_step(subject, path, objective=objective)
        assert steps.CHANNEL in {value.name for value in onnx.load(path).graph.input}
        onnx.checker.check_model(path, full_check=True)


def silu_file(path: Path) -> None:
    """Conv, SiLU as Sigmoid and Mul, mean, Gemm, Softmax; and an output beside."""
    rng = np.random.default_rng(0)
    weights = {"k": (6, 3, 3, 3), "w": (6, CLASSES)}
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["x", "k"], ["c"], pads=[1] * 4),
                helper.make_node("Sigmoid", ["c"], ["gate"]),
                helper.make_node("Mul", ["c", "gate"], ["silu"]),
                helper.make_node("GlobalAveragePool", ["silu"], ["p"]),
                helper.make_node("Flatten", ["p"], ["f"]),
                helper.make_node("MatMul", ["f", "w"], ["scores"]),
                helper.make_node("Softmax", ["scores"], ["y"], axis=1),
                helper.make_node("Relu", ["c"], ["beside"]),
            ],
            "silu",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
            [
                numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
                for name, shape in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)


@pytest.mark.parametrize(
    "layer", ["y", "beside", "gate"], ids=["the final Softmax", "a branch", "within a SiLU"]
)
@pytest.mark.parametrize("which", ["layers", "neuron"])
def test_a_layer_that_simplification_leaves_out_is_refused(
    layer: str, which: str, tmp_path: Path
) -> None:
    path = tmp_path / "silu.onnx"
    silu_file(path)
    asked = {"layers": [layer]} if which == "layers" else {"layers": ["c"], "neuron": layer}
    with pytest.raises(SourceError, match=f"'{layer}' is not part of the simplified network.*silu"):
        read_subject(path, **asked)
    assert read_subject(path, layers=["c", "silu"]).layers == {"c": "c", "silu": "silu"}


def test_picked_layers_of_one_module_have_names_of_their_own(net: Net, example: Tensor) -> None:
    """A module's name is for what its last call puts out, as where a user says it."""
    subject = read_subject(net, example=example)
    names = list(subject.layers.values())
    assert len(set(names)) == len(names) == 4
    channels = {
        name: replace(subject, neuron=(value, name)).neurons()
        for value, name in subject.layers.items()
    }
    assert channels["silu"] == net.conv1.out_channels, "of the first call the value's own name"
    asked = read_subject(net, example=example, layers=["conv1"], neuron="act")
    assert channels["act"] == asked.neurons() == net.conv2.out_channels


def test_a_network_by_name_has_its_recipe_s_layers() -> None:
    recipe = recipe_of("resnet18")
    assert recipe is not None
    by_name = read_subject("resnet18", weights="none", size=(32, 32))
    assert tuple(by_name.layers.values()) == recipe.layers


def test_a_file_called_as_a_network_is_not_that_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    silu_file(tmp_path / "resnet18")
    with pytest.raises(SourceError, match="give its layers, from the image on, with layers="):
        read_subject("resnet18")


def test_a_network_in_double_precision_is_refused(net: Net, tmp_path: Path) -> None:
    double = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(SourceError, match=r"computes in double.*module\.float\(\)"):
        read_subject(double, example=torch.zeros(1, 3, SIZE, SIZE).double(), layers=["0"])


@pytest.fixture(scope="module")
def flat(net: Net, example: Tensor) -> Subject:
    return read_subject(net, example=example, layers=["conv1", "fc"])


def test_a_matched_layer_without_positions_is_refused(flat: Subject, tmp_path: Path) -> None:
    for write in (write_features, write_step):
        with pytest.raises(SourceError, match=r"'fc' is .* without positions"):
            write(flat, tmp_path / "x.onnx")
    write_channels(flat, tmp_path / "channels.onnx")


def test_an_unknown_objective_is_refused(net: Net, example: Tensor, tmp_path: Path) -> None:
    subject = read_subject(net, example=example, layers=LAYERS)
    with pytest.raises(SourceError, match="'vitall'; choose one of distribution, activation"):
        write_step(subject, tmp_path / "x.onnx", objective="vitall")


@pytest.mark.parametrize("neuron", [None, "conv3"])
def test_a_step_of_activation_maximisation_says_that_it_matches_no_layers(
    neuron: str | None, net: Net, example: Tensor, tmp_path: Path
) -> None:
    subject = read_subject(net, example=example, layers=LAYERS, neuron=neuron)
    write_step(subject, tmp_path / "x.onnx", objective="activation")
    about = StepMetadata.from_props(read_metadata(tmp_path / "x.onnx"))
    assert (about.layers, about.neuron, about.relevance) == ((), neuron, None)
