"""Scores of explain graphs are Quantus's own of the PyTorch network, image by image."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onnxplain.bench.evaluation.peer import OfPixels, attribution, score
from onnxplain.evaluation import METRICS, Evaluation, evaluate
from onnxplain.evaluation.cells import drawn
from onnxplain.evaluation.images import pixels_of
from onnxplain.evaluation.scoring import Tiles, mosaic_of
from onnxplain.evaluation.subject import opened
from onnxplain.runtime.loading import metadata_of

from .small import MEAN, METHODS, STD

quantus = pytest.importorskip("quantus")


@pytest.fixture(scope="module")
def evaluation(graphs: dict[str, Path], images: Path) -> Evaluation:
    return evaluate([graphs[method] for method in METHODS], images, provider="cpu")


def test_every_score_is_quantus_own(
    evaluation: Evaluation, network: nn.Module, graphs: dict[str, Path], images: Path
) -> None:
    pre = metadata_of(graphs["gradient"]).preprocessing
    seen = {path.name: pixels_of(path, pre) for path in sorted(images.iterdir())}
    of = OfPixels(network, MEAN, STD).eval()
    with torch.no_grad():
        predicted = {n: int(of(torch.from_numpy(x)).argmax()) for n, x in seen.items()}
    assert len(set(predicted.values())) > 1
    assert len(evaluation.scores) == 4 * 3 * 7
    apart = {}
    for one in evaluation.scores:
        assert one.error == ""
        assert one.score is not None
        assert one.target == predicted[one.image]
        metric = next(metric for metric in evaluation.metrics if metric.name == one.metric)
        digest = hashlib.sha256((images / one.image).read_bytes()).hexdigest()
        tiles = None
        if metric.name == "focus":
            others = _mosaics_images(one.image, predicted, digest)
            tiles = Tiles(
                np.concatenate([seen[name] for name in others]),
                [predicted[name] for name in others],
            )
        seed = drawn(314, digest, metric.name)
        right = score(metric, of, one.graph, seen[one.image], one.target, tiles, seed, classes=4)
        apart[one.metric, one.graph, one.image] = abs(one.score - right)
    assert {of: by for of, by in apart.items() if by > 1e-3} == {}


def test_randomised_networks_are_scored_as_quantus_does(
    network: nn.Module,
    graphs: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Quantus resets PyTorch's layers, here to the values that the graph's shuffled layers have."""
    names = ["mprt", "smooth-mprt", "efficient-mprt"]
    found = evaluate([*graphs.values()], images / "1.png", metrics=names, provider="cpu")
    given = graphs["gradient"], "g", tmp_path, "cpu", "float32", None
    path = opened(*given, {}).randomised().explainer.path
    assert path is not None
    graph = onnx.load(path).graph
    tensors = [t for t in graph.initializer if t.name.endswith(("weight", "bias"))]
    drawn_for = {tuple(t.dims): torch.tensor(numpy_helper.to_array(t)) for t in tensors}

    def reset(layer: nn.Conv2d | nn.Linear) -> None:
        for parameter in (layer.weight, layer.bias):
            new = drawn_for[tuple(parameter.shape)]
            assert not torch.equal(parameter, new)
            torch.testing.assert_close(parameter.flatten().sort()[0], new.flatten().sort()[0])
            with torch.no_grad():
                parameter.copy_(new)

    for kind in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(kind, "reset_parameters", reset)
    pre = metadata_of(graphs["gradient"]).preprocessing
    x, of = pixels_of(images / "1.png", pre), OfPixels(network, MEAN, STD).eval()
    digest = hashlib.sha256((images / "1.png").read_bytes()).hexdigest()
    for one in found.scores:
        assert one.score is not None, one.error
        metric = METRICS[one.metric]
        smooth = partial(_attribution, method=one.graph)
        monkeypatch.setattr(quantus, "explain", smooth)
        seed = drawn(314, digest, metric.name)
        right = score(metric, of, one.graph, x, one.target, None, seed, classes=4)
        assert abs(one.score - right) < 1e-3, one


def _attribution(
    model: OfPixels, inputs: np.ndarray, targets: np.ndarray, method: str, **_: object
) -> np.ndarray:
    return attribution(model, inputs, targets, method)


def _mosaics_images(own: str, predicted: dict[str, int], digest: str) -> tuple[str, ...]:
    random = np.random.default_rng(drawn(314, digest, "partners"))
    names = sorted(predicted)
    same = [name for name in names if predicted[name] == predicted[own] and name != own]
    other = [name for name in names if predicted[name] != predicted[own]]
    beside = same[random.integers(len(same))] if same else own
    chosen = random.choice(len(other), 2, replace=len(other) < 2)
    return own, beside, *(other[i] for i in chosen)


def test_a_mosaic_has_its_target_twice() -> None:
    """Tiles of one colour each: where the target's two are, and only there, Quantus is told 1."""
    images = np.stack([np.full((3, 4, 6), value) for value in (0.5, 0.6, -0.1, -0.2)])
    mosaic, where = mosaic_of(Tiles(images, [7, 7, 1, 2]), 3)
    corners = [mosaic[0, 0, y, x] for y in (0, 3) for x in (0, 5)]
    assert sum(where) == 2
    assert [corner > 0 for corner in corners] == [bool(there) for there in where]
    assert mosaic.shape == (1, 3, 4, 6)
