"""Several targets on OpenVINO: image by image, the cotangents merged; the same explanations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import onnxplain
from onnxplain.runtime.onnx_file import read_ports
from onnxplain.runtime.sessions.openvino.compile import prepared
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.one_image import one_image

pytest.importorskip("openvino")


class Network(torch.nn.Module):
    """Gates, a sum of branches, a concatenation, a max-pool, and linear layers over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.branch = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.beside = torch.nn.Conv2d(8, 4, 1)
        self.mixer = torch.nn.Linear(12, 12)
        self.head = torch.nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.branch(x))
        x = torch.nn.functional.max_pool2d(torch.cat([x, self.beside(x)], 1), 3, 2, 1)
        tokens = torch.nn.functional.gelu(self.mixer(x.flatten(2).transpose(1, 2)))
        return self.head(tokens.mean(1))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("targets") / "k.onnx"
    example = torch.zeros(1, 3, 16, 20)
    onnxplain.export(Network().eval(), path, example=example, multi_target=True)
    return path


def gates(model) -> list[int]:
    """The ranks of the products with a gate in the backward pass."""
    return [
        len(node.output(0).get_partial_shape())
        for node in model.get_ops()
        if node.get_type_name() == "Multiply"
        and any(node.input_value(i).get_node().get_type_name() == "Sigmoid" for i in (0, 1))
    ]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("targets", [[-1], [-1, 2, -2, 0]], ids=len)
def test_it_gives_what_onnx_runtime_gives(graph, images, targets):
    x = np.random.default_rng(0).standard_normal((images, 3, 16, 20), dtype=np.float32)
    found = onnxplain.load(graph, "openvino")(x, [targets] * images)
    expected = onnxplain.load(graph, "cpu")(x, [targets] * images)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(found.targets, expected.targets)


def test_each_image_has_its_own_targets(graph):
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 20), dtype=np.float32)
    explainer = onnxplain.load(graph, "openvino")
    together = explainer(x, [[0, 1], [2, 3], [4, 5]])
    for i in range(3):
        alone = explainer(x[i], [[2 * i, 2 * i + 1]])
        np.testing.assert_array_equal(together.pullback[i], alone.pullback[0])


def test_gates_meet_the_cotangents_merged(graph):
    assert {*gates(core().read_model(graph))} == {5}
    alone = one_image(read_ports(graph)[0])
    assert {*gates(prepared(core().read_model(graph), "float32", alone))} == {4}


def test_a_graph_of_a_fixed_batch_is_left_as_it_is(graph_file, x):
    explainer = onnxplain.load(graph_file(multi_target=True, batch=3), "openvino")
    assert explainer.backend.signature.batch == 3
    expected = onnxplain.load(graph_file(multi_target=True), "cpu")(x, [[0, -1]] * 3)
    np.testing.assert_allclose(explainer(x, [[0, -1]] * 3).pullback, expected.pullback, rtol=1e-5)
