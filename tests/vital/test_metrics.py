"""How visualisations are measured: who recognises them, and Fréchet distances."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image, ImageOps

from onnxplain.bench import visualisation
from onnxplain.errors import InputError
from onnxplain.export.sources.source import torch_network
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions import open_session
from onnxplain.vital.metrics import Judge, frechet_distance, score
from onnxplain.vital.search.image_files import walk

CAT, ESPRESSO = 285, 967
MISSILE = 657


# ----- Fréchet distance -----


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Samples that have exactly these."""
    x = np.random.default_rng(seed).standard_normal((count, len(mean)))
    x -= x.mean(axis=0)
    x @= np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T, ddof=1)))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_the_distance_of_two_normals_on_a_line() -> None:
    a = with_moments(np.array([1.0]), np.array([[4.0]]), 50, 0)
    b = with_moments(np.array([-2.0]), np.array([[9.0]]), 70, 1)
    assert frechet_distance(a, b) == pytest.approx(3**2 + (2 - 3) ** 2)


def test_the_distance_where_the_covariances_commute() -> None:
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    one, other = rng.uniform(0.1, 5, (2, 6))
    between = rng.standard_normal(6)
    a = with_moments(between, q @ np.diag(one) @ q.T, 40, 1)
    b = with_moments(np.zeros(6), q @ np.diag(other) @ q.T, 60, 2)
    right = between @ between + ((np.sqrt(one) - np.sqrt(other)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (300, 12), (9, 12)])
def test_the_distance_is_that_of_the_matrix_square_root(n: int, m: int) -> None:
    """Also with fewer samples than features, where the covariances have no inverse."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((20, 20))
    a, b = rng.standard_normal((n, 20)) @ mixing, 2 * rng.standard_normal((m, 20)) + 1
    between = a.mean(axis=0) - b.mean(axis=0)
    covariances = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    right = between @ between + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(right, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(right, rel=1e-6)


def test_a_shift_of_the_same_few_samples_is_its_square() -> None:
    a = 1000 * np.random.default_rng(0).standard_normal((5, 1280)).astype(np.float32)
    variance = a.var(axis=0, ddof=1).sum()
    assert frechet_distance(a, a) <= 1e-12 * variance
    assert frechet_distance(a, a + 8) == pytest.approx(64 * 1280, rel=1e-3)


def test_fewer_samples_of_one_distribution_are_further_apart() -> None:
    """The caveat of the docstring."""
    x = np.random.default_rng(0).standard_normal((4000, 64))
    few, many = frechet_distance(x[:50], x[50:100]), frechet_distance(x[:2000], x[2000:])
    assert few > 10 * many > 0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 4))),
        (np.zeros(5), np.zeros((5, 1))),
        (np.full((5, 3), np.nan), np.zeros((5, 3))),
    ],
)
def test_what_has_no_distance_is_an_error(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(InputError, match="features"):
        frechet_distance(a, b)


# ----- recognition -----


@pytest.fixture(scope="module")
def judge(channels_graph: Path) -> Judge:
    return Judge(open_session(channels_graph, "cpu"))


@pytest.fixture(scope="module")
def pictures(photographs: dict[str, np.ndarray]) -> list[Image.Image]:
    """A cat, a cup of coffee and a rocket, as large as the network's input."""
    return [ImageOps.fit(Image.fromarray(pixels), (224, 224)) for pixels in photographs.values()]


def test_a_judge_sees_what_pytorch_does(judge: Judge, crops: Path) -> None:
    network = torch_network("efficientnet-lite0")
    files = list(walk([str(crops)]))
    batch, _ = as_batch(files, network.preprocessing)
    maps = {}
    hook = network.module.get_submodule("_swish").register_forward_hook(
        lambda module, x, y: maps.update(last=y)
    )
    with torch.inference_mode():
        right = torch.softmax(network.module(torch.from_numpy(batch)), 1).numpy()
    hook.remove()
    seen = judge.photographs(files)
    np.testing.assert_allclose(seen.probabilities, right, atol=1e-5)
    np.testing.assert_allclose(seen.features, maps["last"].mean((2, 3)).numpy(), atol=1e-4)


def test_pictures_of_the_inputs_size_lose_no_rim(judge: Judge, pictures: list[Image.Image]) -> None:
    framed = pictures[0].copy()
    framed.paste("white", (0, 0, 224, 12))  # what a photograph's crop cuts off
    whole, cut = (
        np.abs(see([framed]).probabilities - see([pictures[0]]).probabilities).max()
        for see in (judge.pictures, judge.photographs)
    )
    assert whole > 1e-3 > cut


def test_a_row_says_who_recognises_the_pictures(
    judge: Judge, pictures: list[Image.Image], crops: Path
) -> None:
    references = list(walk([str(crops)]))
    (right,) = score(pictures, [CAT, ESPRESSO, MISSILE], [judge], references)
    (wrong,) = score(pictures, 0, [judge], references)
    assert (right.network, right.pictures, right.top1) == ("efficientnet-lite0", 3, 1.0)
    own = judge.pictures(pictures).probabilities[[0, 1, 2], [CAT, ESPRESSO, MISSILE]]
    assert right.probability == pytest.approx(own.mean())
    assert own.min() > 0.2
    assert (wrong.top1, wrong.top5) == (0, 0)
    assert wrong.probability < 0.01
    assert right.distance == wrong.distance
    assert score(pictures[:1], CAT, [judge], references)[0].distance is None


def test_the_runner_up_counts_for_the_first_five_alone(
    judge: Judge, pictures: list[Image.Image], crops: Path
) -> None:
    ranked = np.argsort(-judge.pictures(pictures[:1]).probabilities[0])
    rows = [
        score(pictures[:1], int(ranked[i]), [judge], list(walk([str(crops)])))[0] for i in (4, 5)
    ]
    assert [(row.top1, row.top5) for row in rows] == [(0, 1), (0, 0)]


def test_real_pictures_are_nearer_than_noise(
    judge: Judge, pictures: list[Image.Image], crops: Path
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (224, 224, 3)).astype(np.uint8) for _ in pictures]
    references = list(walk([str(crops)]))
    near, far = (score(p, 0, [judge], references)[0].distance for p in (pictures, noise))
    assert near is not None
    assert far is not None
    assert near < far


@pytest.mark.parametrize(
    ("classes", "said"), [([1, 2], "2 classes for 3"), (1000, "0 to 999"), ([0, -1, 2], "0 to 999")]
)
def test_classes_that_do_not_fit_are_errors(
    classes: int | list[int], said: str, judge: Judge, pictures: list[Image.Image]
) -> None:
    with pytest.raises(InputError, match=said):
        score(pictures, classes, [judge], pictures)


# ----- the comparison -----


def test_the_comparison_writes_a_row_for_each_method_and_network(
    judge: Judge,
    pictures: list[Image.Image],
    crops: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = {name: tmp_path / name for name in ("ours", "noise")}
    rng = np.random.default_rng(0)
    for name, folder in folders.items():
        folder.mkdir()
        for index, picture in zip((CAT, ESPRESSO, MISSILE), pictures, strict=True):
            shown = (
                picture
                if name == "ours"
                else Image.fromarray(rng.integers(0, 256, (224, 224, 3)).astype(np.uint8))
            )
            shown.save(folder / f"{index}-seed-0.png")
    monkeypatch.setattr(visualisation, "read_judge", lambda name, provider: judge)
    out = tmp_path / "compared.json"
    methods = [f"--method={name}={folder}" for name, folder in folders.items()]
    arguments = ["visualisation", out, *methods, "--network=x", f"--references={crops}"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    visualisation.main()
    measured = json.loads(out.read_text())
    assert [(row["method"], row["top1"]) for row in measured["rows"]] == [("ours", 1), ("noise", 0)]
    assert measured["references"] == 11
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| ours | efficientnet-lite0 | 3 | 100% | 100% |")
    other = tmp_path / "other"
    other.mkdir()
    pictures[0].save(other / "cat.png")
    pictures[0].save(other / "281-cat.transparent.png")
    with pytest.raises(InputError, match="a class's index"):
        visualisation.measure({"other": other}, ["x"], crops)
