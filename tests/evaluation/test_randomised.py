"""The explanation of a randomised network: all its layers' weights shuffled, in both passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import onnxplain
from onnxplain.errors import InputError
from onnxplain.evaluation.images import pixels_of
from onnxplain.evaluation.randomised import layers_weights, write_shuffled
from onnxplain.evaluation.subject import Logits, opened
from onnxplain.reference.pytorch import explain

from .small import METHODS, SIDE


class Tokens(nn.Module):
    """A convolution, and dense layers on tokens, [N, 16, 8]: ONNX has these as MatMul and Add."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        self.places = nn.Parameter(torch.randn(16, 8))
        self.dense = nn.Linear(8, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).mT + self.places
        return self.head(self.dense(tokens).relu().mean(1))


def _shuffled(network: nn.Module, path: Path, folder: Path) -> tuple[nn.Module, Path]:
    """A network with the values that its graph's tensors have once shuffled; and that graph.

    A graph's tensor may be a parameter transposed, or times 1/T.
    """
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    target = write_shuffled(path, folder)
    after = {t.name: numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer}
    with torch.no_grad():
        for parameter in network.parameters():
            (name,) = [name for name, tensor in before.items() if _factor(tensor, parameter)]
            old, new = before[name], after[name]
            assert np.array_equal(np.sort(new, axis=None), np.sort(old, axis=None))
            if not np.array_equal(new, old):
                new = _factor(old, parameter) * new
                parameter.copy_(torch.tensor(new if new.shape == parameter.shape else new.T))
    return network, target


def _factor(tensor: np.ndarray, parameter: torch.Tensor) -> float:
    """By which the tensor, or its transpose, gives the parameter; 0 where none does."""
    for values in (tensor, tensor.T):
        if values.shape == parameter.shape and values.any():
            factor = float(np.abs(parameter.numpy()).max() / np.abs(values).max())
            if np.allclose(factor * values, parameter, atol=1e-6):
                return factor
    return 0.0


@pytest.mark.parametrize(
    ("method", "layer"),
    [("gradient", {}), ("excitation", {}), ("lrp-zplus", {}), ("gradcam", {"layer": "patches"})],
)
def test_the_explanation_is_of_the_shuffled_network(
    tmp_path: Path, method: str, layer: dict[str, str]
) -> None:
    torch.manual_seed(0)
    network, path = Tokens().eval(), tmp_path / "x.explain.onnx"
    was = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x = torch.randn(2, 3, SIDE, SIDE)
    onnxplain.export(network, path, example=x, method=method, **layer)
    network, path = _shuffled(network, path, tmp_path / "out")
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, was[name])}
    assert moved == was.keys() - {"places"}  # which no layer reads
    targets = torch.tensor([1, 3])
    logits, pullback = explain(network, x, targets, method, **layer)
    found = onnxplain.load(path, "cpu", threads=1).answer(x.numpy(), targets.numpy())
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["pullback"], pullback, atol=1e-5 * pullback.abs().max())


def test_methods_of_one_network_are_of_one_shuffled_network(
    graphs: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    """The forward and the backward pass are: the gradient is that of the logits, by differences."""
    forwards: dict[str, Logits] = {}
    subjects = [opened(graphs[m], m, tmp_path, "cpu", "float32", None, forwards) for m in METHODS]
    x = pixels_of(images / "1.png", subjects[0].preprocessing)
    whole, shuffled = subjects[0].logits(x), [one.randomised().logits(x) for one in subjects]
    assert not np.allclose(whole, shuffled[0], rtol=0.1)
    for other in shuffled[1:]:
        np.testing.assert_allclose(other, shuffled[0], rtol=1e-5)
    gradient = subjects[0].randomised().explain(x, np.array([2]))
    step = 1e-3 * np.sign(gradient)
    ahead, behind = (subjects[0].randomised().logits(x + s)[0, 2] for s in (step, -step))
    np.testing.assert_allclose((gradient * 2 * step).sum(), ahead - behind, rtol=0.02)


def test_a_file_that_keeps_copies_of_weights_is_not_shuffled(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backward pass would be that of the network as it was. It is told once, and remembered."""
    model = onnx.load(graphs["gradient"])
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    flipped = numpy_helper.to_array(weight)[..., ::-1, ::-1]
    model.graph.initializer.append(numpy_helper.from_array(flipped.copy(), "flipped"))
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match="keeps a copy of weights, 'flipped'"):
        write_shuffled(tmp_path / "x.onnx", tmp_path / "out")
    subject = opened(tmp_path / "x.onnx", "x", tmp_path, "cpu", "float32", None, {})
    for _ in range(2):
        with pytest.raises(InputError, match="keeps a copy"):
            subject.randomised()
        monkeypatch.setattr("onnxplain.evaluation.subject.write_shuffled", None)


def test_what_no_order_changes_may_be_shared(graphs: dict[str, Path], tmp_path: Path) -> None:
    """Biases of 0, as of a network that is not trained: other tensors are such too."""
    model = onnx.load(graphs["gradient"])
    bias = next(t for t in model.graph.initializer if t.name.endswith("bias"))
    zeros = np.zeros(tuple(bias.dims), np.float32)
    bias.CopyFrom(numpy_helper.from_array(zeros, bias.name))
    model.graph.initializer.append(numpy_helper.from_array(zeros, "others"))
    onnx.save(model, tmp_path / "x.onnx")
    assert write_shuffled(tmp_path / "x.onnx", tmp_path / "out").is_file()


def test_shapes_are_no_weights() -> None:
    """Of a dense layer whose weights are reshaped: [2, 3], and not [3, 2]."""
    nodes = [
        helper.make_node("Reshape", ["flat", "sizes"], ["matrix"]),
        helper.make_node("MatMul", ["image", "matrix"], ["logits"]),
    ]
    tensors = [
        numpy_helper.from_array(np.arange(6, dtype=np.float32), "flat"),
        numpy_helper.from_array(np.array([2, 3]), "sizes"),
    ]
    ends = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count])]
        for name, count in (("image", 2), ("logits", 3))
    )
    graph = helper.make_graph(nodes, "reshaped", *ends, tensors)
    assert layers_weights(graph) == {"flat": 0}


def test_vectors_that_are_added_to_a_layer_are_its_biases() -> None:
    """Not one that is added to another output, nor what has a value for each place."""
    model = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["": 20]>
added (float[1, 3, 4, 4] image) => (float[1, 2, 4, 4] logits)
{
    conv = Conv (image, first)
    biased = Add (bias, conv)
    placed = Add (biased, places)
    gated = Relu (placed)
    moved = Add (gated, after)
    logits = Conv (moved, second, inside)
}""")
    zeros = {"first": (2, 3, 1, 1), "bias": (1, 2, 1, 1), "places": (2, 4, 4), "after": (2, 1, 1)}
    zeros |= {"second": (2, 2, 1, 1), "inside": (2,)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in zeros.items()
    )
    assert layers_weights(model.graph) == {"first": 0, "bias": 0, "second": 1, "inside": 1}
