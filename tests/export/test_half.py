"""Networks in half precision are explained in float32, from a file no larger than theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

import onnxplain
from onnxplain.reference.answers import compare

from .graphs import cosine, explain, head, images, node, source_outputs, write

IMAGES = images(2, 3, 16, 16)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(32)
        self.block = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.relu6(self.norm(self.stem(x)))
        return self.head(self.block(x).relu().mean((2, 3)))


@pytest.fixture(scope="module", params=[torch.float16, torch.bfloat16], ids=str)
def half(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.nn.Module]:
    """A file in half precision, and a float32 network with the weights that it holds."""
    torch.manual_seed(0)
    module = Network().eval().to(request.param)
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, 16, 16, dtype=request.param),),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
        external_data=False,
        verbose=False,
    )
    return path, module.float()


@pytest.mark.parametrize("method", ["gradient", "excitation"])
def test_half_precision_is_explained_in_float32(
    method: str, half: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    source, module = half
    path = tmp_path / "explain.onnx"
    onnxplain.export(source, path, method=method)
    onnx.checker.check_model(path, full_check=True)
    parity = compare(onnxplain.load(path, threads=1), module, IMAGES, np.array([-1, 3]))
    # The exporter folds BatchNormalization in half precision, which rounds.
    assert all(p.relative_l2 < 2e-2 and p.cosine > 0.9995 for p in parity.values())


def test_weights_stay_stored_in_half_precision(
    half: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "explain.onnx"
    onnxplain.export(half[0], path)
    weights = {len(w.dims): w.data_type for w in onnx.load(path).graph.initializer}
    assert weights[4] in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    graph = onnx.load(path).graph
    ends = [*graph.input, *graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {TensorProto.FLOAT, TensorProto.INT64}


def test_the_file_is_hardly_larger_than_the_half_precision_one(tmp_path: Path) -> None:
    source, path = tmp_path / "half.onnx", tmp_path / "explain.onnx"
    nodes = [node("Conv", ["x", "K"], ["c"]), node("GlobalAveragePool", ["c"], ["h"])]
    tail, weight = head("h", 1024, 1000)
    weights = {"K": images(1024, 3, 16, 16)} | weight
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    write(source, [*nodes, *tail], halves, ("N", 3, 16, 16), dtype=TensorProto.FLOAT16)
    onnxplain.export(source, path)
    assert path.stat().st_size <= 1.05 * source.stat().st_size


def test_a_graph_mixed_with_float32_by_casts(tmp_path: Path) -> None:
    """As converters make them: float32 ends and reductions, half precision between."""
    nodes = [
        node("Cast", ["x"], ["low"], to=TensorProto.FLOAT16),
        node("Conv", ["low", "K"], ["c"], pads=[1] * 4),
        node("Constant", [], ["six"], value=numpy_helper.from_array(np.float16(6))),
        node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float16(0))),
        node("Clip", ["c", "zero", "six"], ["r"]),
        node("Cast", ["r"], ["wide"], to=TensorProto.FLOAT),
        node("GlobalAveragePool", ["wide"], ["p"]),
        node("CastLike", ["p", "six"], ["h"]),
    ]
    tail, weight = head("h", 8)
    tail += [node("Cast", ["y"], ["logits"], to=TensorProto.FLOAT)]
    weights = {"K": images(8, 3, 3, 3).astype(np.float16), "W": weight["W"].astype(np.float16)}
    path = write(tmp_path / "mixed.onnx", [*nodes, *tail], weights, outputs=["logits"])
    x = images(2, 3, 8, 8)
    explanation = explain(path, x, method="excitation", temperature=1.0)
    np.testing.assert_allclose(explanation.logits, source_outputs(path, x)[0], atol=5e-3)
    stored = onnx.load(tmp_path / "mixed.excitation.onnx").graph.initializer
    assert TensorProto.FLOAT16 not in {weight.data_type for weight in stored}  # all are small

    single = {name: array.astype(np.float32) for name, array in weights.items()}
    plain = [node("Conv", ["x", "K"], ["c"], pads=[1] * 4), *nodes[2:5]]
    plain = [*plain[:1], *nodes[4:5], node("GlobalAveragePool", ["r"], ["h"]), *tail[:2]]
    single |= {"zero": np.float32(0), "six": np.float32(6)}
    other = write(tmp_path / "plain.onnx", plain, single)
    expected = explain(other, x, method="excitation", temperature=1.0)
    assert cosine(explanation.pullback, expected.pullback) > 0.999999


def test_float64_stays_float64(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "x"], ["s"]), node("Softmax", ["s"], ["h"])]
    tail, weight = head("h", 3 * 64)
    weights = {"W": weight["W"].astype(np.float64)}
    path = write(tmp_path / "d.onnx", [*nodes, *tail], weights, dtype=TensorProto.DOUBLE)
    x = images(2, 3, 8, 8).astype(np.float64)
    explanation = explain(path, x)
    assert explanation.pullback.dtype == np.float64
    np.testing.assert_allclose(explanation.logits, source_outputs(path, x)[0], rtol=1e-12)


MEANS = {
    "GlobalAveragePool": node("GlobalAveragePool", ["c"], ["h"]),
    "ReduceMean": node("ReduceMean", ["c", "axes"], ["h"]),
    "AveragePool": node("AveragePool", ["c"], ["h"], kernel_shape=[660, 645]),
}


@pytest.mark.parametrize(
    ("mean", "size"),
    [("GlobalAveragePool", "any"), ("ReduceMean", "any"), *((name, None) for name in MEANS)],
)
def test_a_mean_of_more_pixels_than_float16_counts(
    mean: str, size: str | None, tmp_path: Path
) -> None:
    """1 / 425,700 in each of them, of which float16 holds neither the number nor the reciprocal."""
    tail, weight = head("h", 4)
    K, W = images(4, 3, 1, 1).astype(np.float16), weight["W"].astype(np.float16)
    nodes = [node("Conv", ["x", "K"], ["c"]), MEANS[mean], *tail]
    weights = {"K": K, "W": W, "axes": np.array([2, 3])}
    sides = ("N", 3, 660, 645)
    source = write(tmp_path / "n.onnx", nodes, weights, sides, dtype=TensorProto.FLOAT16)
    options = {"size": size} if size else {}
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient", check=False, **options)
    half = onnxplain.load(tmp_path / "e.onnx", "cpu", "float16")
    found = half(np.zeros([1, *sides[1:]], np.float32), 1).pullback
    each = K[:, :, 0, 0].T.astype(np.float64) @ W[:, 1] / (660 * 645)
    np.testing.assert_allclose(found[0], np.broadcast_to(each[:, None, None], sides[1:]), rtol=5e-3)
