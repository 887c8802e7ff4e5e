"""The exported graphs compute what PyTorch does, on every runtime that is here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import VisionTransformer

from onnxplain.contract.signals import RECONSTRUCTION
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.sessions import PROVIDERS
from onnxplain.signal.autoencoder import Autoencoder
from onnxplain.signal.classifiers import frozen, open_classifier
from onnxplain.signal.compiled import open_graph
from onnxplain.signal.data import open_data
from onnxplain.signal.export import export_autoencoder, export_classifier
from onnxplain.signal.show import show

from .small import Linear, autoencoder, class_folders

CLOSE = {"ort-tensorrt": 1e-2}  # TF32: ten bits of mantissa


class _Unpooling(nn.Module):
    """Pooling and unpooling alone: what comes out is what went in, at the maxima."""

    def __init__(self) -> None:
        super().__init__()
        from onnxplain.signal import unpooling

        self.pool, self.unpool = unpooling.PORTABLE

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pooled, places = self.pool(pixels)
        return self.unpool(pooled + 1, places).flatten(1)


def missing(provider: str) -> pytest.MarkDecorator:
    reason = PROVIDERS[provider].missing()
    return pytest.mark.skipif(reason is not None, reason=str(reason))


RUNTIMES = [pytest.param(name, marks=missing(name)) for name in PROVIDERS]


def error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    return autoencoder("segnet-tiny", 16)


@pytest.fixture(scope="module")
def graph(network: Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("graph") / "signal.onnx"
    export_autoencoder(network, path, Linear(3, 16, 2), ("cat", "dog"))
    return path


@pytest.mark.parametrize("provider", RUNTIMES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_runtime_gives_pytorchs_reconstruction_and_logits(
    graph: Path, network: Autoencoder, provider: str, batch: int
) -> None:
    torch.manual_seed(0)
    classifier = Linear(3, 16, 2)
    pixels = torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network(pixels)
        logits = classifier(expected)
    loaded = open_graph(graph, provider, threads=1)
    found = loaded.run(pixels.numpy())
    assert loaded.about.classes == ("cat", "dog")
    close = CLOSE.get(provider, 1e-4)
    assert error(found[RECONSTRUCTION], expected.numpy()) <= close
    assert error(found["logits"], logits.numpy()) <= close


def _attention() -> nn.Module:
    torch.manual_seed(0)
    network = VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3)
    nn.init.normal_(network.heads[0].weight)
    return frozen(network)


class _Shared(nn.Module):
    """Attention over three dimensions, which PyTorch's exporter does not take as it is."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.flatten(2)
        return nn.functional.scaled_dot_product_attention(x, x, x).mean(2)


@pytest.mark.parametrize("make", [_attention, _Shared])
def test_a_classifier_with_attention_is_exported(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    classifier, path = make(), tmp_path / "classifier.onnx"
    export_classifier(classifier, path, 3, 16, ("a", "b", "c"))
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = classifier(pixels).numpy()
    found = open_graph(path, "cpu", threads=1).run(pixels.numpy())["logits"]
    assert error(found, expected) <= 1e-4


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("kind", ["script", "program"])
def test_a_classifier_from_a_file_is_exported(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier, file = Linear(3, 16, 2), tmp_path / "linear.pt"
    if kind == "script":
        torch.jit.script(classifier).save(file)
    else:
        size = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(classifier, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=size)
        torch.export.save(program, file)
    data = open_data(str(class_folders(tmp_path / "data")), 16)
    opened, path = open_classifier(str(file), data), tmp_path / "classifier.onnx"
    export_classifier(opened, path, 3, 16, data.classes)
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    expected = opened(pixels).numpy()
    assert error(open_graph(path, "cpu", threads=1).run(pixels.numpy())["logits"], expected) <= 1e-4


@pytest.mark.parametrize("provider", RUNTIMES)
def test_unpooling_is_exact_on_every_runtime_ties_included(provider: str, tmp_path: Path) -> None:
    path = tmp_path / "unpooling.onnx"
    export_classifier(_Unpooling(), path, 2, 8, ())
    pixels = np.random.default_rng(0).integers(-2, 3, (3, 2, 8, 8)).clip(0).astype(np.float32)
    x = torch.from_numpy(pixels)
    pooled, indices = nn.functional.max_pool2d(x, 2, 2, return_indices=True)
    expected = nn.functional.max_unpool2d(pooled + 1, indices, 2, 2).flatten(1)
    found = open_graph(path, provider, threads=1).run(pixels)["logits"]
    assert np.array_equal(found, expected.numpy())


def test_the_graph_has_standard_operators_and_an_open_batch(graph: Path) -> None:
    model = onnx.load(graph)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"MaxUnpool", "MaxPool", "Scatter", "ScatterND", "ScatterElements"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_tensorrt_rtx_compiles_the_graph(graph: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt.build import compile_graph

    assert len(compile_graph(graph, sm=[89], batches=(1, 2, 4), keep=False).payload) > 0
    with pytest.raises(BackendError, match="does not build for SM 12"):
        compile_graph(graph, sm=[12])


def test_the_portable_form_is_the_native_one_to_the_bit(network: Autoencoder) -> None:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    portable = autoencoder("segnet-tiny", 16)
    portable.portable = True
    with torch.no_grad():
        assert torch.equal(network(pixels), portable(pixels))


def test_nan_is_no_picture(graph: Path, tmp_path: Path) -> None:
    """An infinite weight once gave a black reconstruction."""
    model = onnx.load(graph)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = np.full(len(weight.raw_data) // 4, np.inf, np.float32).tobytes()
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(BackendError, match=f"{RECONSTRUCTION} for these pictures is NaN"):
        show(open_graph(tmp_path / "m.onnx", "cpu"), [np.zeros((16, 16, 3), np.uint8)])


def test_what_is_no_graph_of_ours_is_refused(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BackendError, match="not a graph of an autoencoder"):
        open_graph(tmp_path / "other.onnx")
    with pytest.raises(BackendError, match="unknown provider 'tpu'"):
        open_graph(graph, "tpu")
    with pytest.raises(BackendError, match="no such file"):
        open_graph(graph.with_name("missing.onnx"))
    with pytest.raises(InputError, match=r"of \[3, 16, 16\], not .*\[1, 16, 16\]"):
        open_graph(graph).run(np.zeros((1, 1, 16, 16), np.float32))
