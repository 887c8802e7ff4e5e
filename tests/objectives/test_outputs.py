"""The network's other outputs: their axes, their images, and how a backend's are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import onnxplain
from onnxplain.contract.objective import Explained
from onnxplain.errors import SourceError
from onnxplain.runtime import Explainer
from onnxplain.runtime.outputs import joined, of_images
from onnxplain.runtime.verification import agreement, sample

from .networks import close, exported, images, seeded, vector
from .test_maps import network as maps

X = images(3)


class Beside(nn.Module):
    """A vector, which is explained, and beside it a series with time first."""

    def __init__(self) -> None:
        super().__init__()
        self.network = vector(7)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.network(x)
        return {"y": y, "series": torch.stack([y, 2 * y, 3 * y], 2).permute(1, 0, 2)}


def test_an_output_that_is_not_explained_has_its_images_along_its_own_axis() -> None:
    explainer = exported(Beside().eval(), objective="value")
    assert explainer.metadata.objective.axes["series"] == ["", "batch", ""]
    explanation = explainer(X.numpy(), batch_size=2)
    expected = Beside()(X)["series"].detach().numpy()
    close(explanation.outputs["series"], expected)
    close(explanation[1:].outputs["series"], expected[:, 1:])


def test_whole_numbers_stay_and_constants_are_left_out_and_named(tmp_path: Path) -> None:
    node, info = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Flatten", ["image"], ["pixels"]),
            node("MatMul", ["pixels", "w"], ["y"]),
            node("ArgMax", ["y"], ["label"], axis=1),
            node("Greater", ["y", "zero"], ["above"]),
            node("Mul", ["two", "two"], ["priors"]),
        ],
        "labelled",
        [info("image", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [
            info("label", TensorProto.INT64, None),
            info("above", TensorProto.BOOL, None),
            info("y", TensorProto.FLOAT, ["N", 5]),
            info("priors", TensorProto.FLOAT, [2]),
        ],
        [
            numpy_helper.from_array(np.eye(48, 5, dtype=np.float32), "w"),
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            numpy_helper.from_array(np.full(2, 2, np.float32), "two"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    metadata = onnxplain.export(
        tmp_path / "m.onnx", tmp_path / "e.onnx", objective="value", method="gradient"
    )
    axes = {"y": ("batch", "value"), "label": ["batch", ""], "above": ["batch", ""]}
    assert {name: list(found) for name, found in metadata.objective.axes.items()} == {
        name: list(found) for name, found in axes.items()
    }
    (note,) = (note for note in metadata.notes if "left out" in note)
    assert note.startswith("left out: priors, the same for every image")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    x = images(3, 4).numpy()
    found = explainer(x, batch_size=2).outputs
    y = x.reshape(3, 48)[:, :5]
    np.testing.assert_array_equal(found["label"], y.argmax(1)[:, None])
    np.testing.assert_array_equal(found["above"], y > 0)


@pytest.mark.usefixtures("compared")
class Labelled(nn.Module):
    """A map, and of each place the class."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.map(x)
        return {"map": y, "best": y.argmax(1), "any": (y > 1).flatten(1).any(1)}


class Best(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).argmax(1)


@pytest.mark.usefixtures("compared")
def test_whole_numbers_of_a_module_stay_too(tmp_path: Path) -> None:
    network, x = seeded(Labelled), images()
    given: dict[str, Any] = {"example": x[:1], "method": "gradient"}
    metadata = onnxplain.export(network, tmp_path / "e.onnx", objective="segment", **given)
    assert not any("not checked" in note for note in metadata.notes)
    found = onnxplain.load(tmp_path / "e.onnx", "cpu")(x.numpy()).outputs
    with torch.no_grad():
        for name, y in network(x).items():
            np.testing.assert_allclose(found[name], y.numpy(), atol=1e-5)
    with pytest.raises(SourceError, match=r"returns torch\.int64, and floats alone"):
        onnxplain.export(Best().eval(), tmp_path / "e.onnx", **given)


def test_whole_numbers_do_not_keep_a_batch_fixed(tmp_path: Path) -> None:
    """Those of each image stay once the batch is open; one number of all images cannot."""
    node, info = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Conv", ["image", "w"], ["y"]),
            node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
            node("ReduceMax", ["label"], ["most"], keepdims=0),
        ],
        "labelled",
        [info("image", TensorProto.FLOAT, [1, 3, 4, 4])],
        [
            info("label", TensorProto.INT64, None),
            info("most", TensorProto.INT64, None),
            info("y", TensorProto.FLOAT, [1, 5, 4, 4]),
        ],
        [numpy_helper.from_array(np.eye(5, 3, dtype=np.float32)[:, :, None, None], "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    metadata = onnxplain.export(tmp_path / "m.onnx", tmp_path / "e.onnx", method="gradient")
    notes = [note.split(",")[0] for note in metadata.notes]
    assert notes[1:] == ["left out: most", "assumed ImageNet's mean (0.485"]
    x = images(2, 4).numpy()
    for provider in ("cpu", "openvino"):
        found = onnxplain.load(tmp_path / "e.onnx", provider)(x).outputs["label"]
        y = np.concatenate([x, np.zeros((2, 2, 4, 4))], 1)
        np.testing.assert_array_equal(found, y.argmax(1))


def test_an_output_without_a_known_batch_axis_is_kept_where_runs_agree() -> None:
    explained = Explained("value", axes={"y": ["batch", ""], "priors": ["", ""], "mean": []})
    runs = [
        {"y": np.full((2, 3), i), "priors": np.eye(4), "mean": np.array(float(i))} for i in range(2)
    ]
    found = joined(explained, runs)
    assert {name: array.shape for name, array in found.items()} == {"y": (4, 3), "priors": (4, 4)}
    np.testing.assert_array_equal(of_images(explained, found, [2])["y"], [[1, 1, 1]])
    assert of_images(explained, found, slice(1))["priors"].shape == (4, 4)


class Changed:
    """A backend of which one output is something else."""

    def __init__(self, backend: Any, name: str, change: Any) -> None:
        self.backend, self.name, self.change = backend, name, change
        self.signature = backend.signature

    def run(self, inputs: Any) -> Any:
        found = dict(self.backend.run(inputs))
        return found | {self.name: self.change(found[self.name])}


@pytest.mark.parametrize(
    ("name", "change", "agrees"),
    [
        ("objective", lambda y: y * 1.0001, True),
        ("objective", lambda y: y * 1024, False),
        ("objective", lambda y: -y, False),
        ("pullback", lambda g: g / 1024, False),
        ("pullback", lambda g: g * 1.5, True),
        ("explained_class", lambda c: c, True),
        ("explained_class", lambda c: c + 1, False),
        ("output", lambda y: y[:, :2], False),
    ],
)
def test_a_backend_that_differs(name: str, change: Any, agrees: bool) -> None:
    right = exported(maps())
    found = Explainer(Changed(right.backend, name, change))  # type: ignore[arg-type]
    assert (agreement(found, right, sample(right)).cosine > 0.99) is agrees


def test_of_two_classes_predicted_alike_rounding_may_not_decide() -> None:
    """A backend that predicts the other gives what is asked of it by index."""
    right = exported(maps())
    batch = sample(right)
    own = right.answer(batch, np.full(2, -1))["explained_class"]

    class Other(Changed):
        def run(self, inputs: Any) -> Any:
            target = inputs["target"]
            other = (own[: len(target)] + 1) % 4
            return self.backend.run({**inputs, "target": np.where(target < 0, other, target)})

    found = Explainer(Other(right.backend, "", None))  # type: ignore[arg-type]
    assert agreement(found, right, batch).cosine > 0.9999


def test_a_file_without_axes_of_an_output_has_its_images_first() -> None:
    old = Explained("value", axes={"y": ["batch", "value"]})
    assert (old.batch_axis("y"), old.batch_axis("other")) == (0, 0)
    assert replace(old, axes={"y": ["", "batch"], "m": []}).batch_axis("y") == 1
