"""Do two files still explain alike? A layer's weights shuffled is found, half precision passes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import BackendError, InputError
from onnxplain.evaluation.drift import Drift, ImageDrift, compare
from onnxplain.evaluation.drift_page import write_page
from onnxplain.runtime import Explainer

from .digits import SIZE, trained, write_files

SHUFFLED = {"excitation": (0, 3, 7), "gradient": (3,)}
"""By method: the layers that are shuffled, one at a time."""


def write(network: nn.Module, path: Path, **options: object) -> Path:
    usual = {"example": torch.zeros(1, 1, SIZE, SIZE), "mean": [0.5], "std": [0.5]}
    onnxplain.export(network, path, **usual | options)
    return path


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return trained()


@pytest.fixture(scope="module")
def folder(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explain graph by each method, and of networks of which one layer is shuffled."""
    folder = tmp_path_factory.mktemp("drift")
    for method, layers in SHUFFLED.items():
        labels = [f"digit {i}" for i in range(10)]
        write(network, folder / f"{method}.onnx", method=method, labels=labels)
        for layer in layers:
            shuffled = copy.deepcopy(network)
            weight = shuffled[layer].weight.data
            order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(0))
            weight.copy_(weight.flatten()[order].view_as(weight))
            write(shuffled, folder / f"{method}.{layer}.onnx", method=method)
    return folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_files(tmp_path_factory.mktemp("images") / "digits", 12)


def opened(path: Path, precision: str = "float32") -> Explainer:
    return onnxplain.load(path, "cpu", precision=precision, threads=1)


@pytest.mark.parametrize("method", SHUFFLED)
def test_a_layer_whose_weights_are_shuffled_is_found(
    method: str, folder: Path, paths: list[Path]
) -> None:
    reference = opened(folder / f"{method}.onnx")
    for layer in SHUFFLED[method]:
        found = compare(opened(folder / f"{method}.{layer}.onnx"), reference, paths)
        assert not found.passed
        assert found.share > 0.8


@pytest.mark.parametrize("method", SHUFFLED)
def test_half_precision_passes(method: str, folder: Path, paths: list[Path]) -> None:
    path = folder / f"{method}.onnx"
    found = compare(opened(path, "float16"), opened(path), paths)
    assert found.passed
    assert found.quantile("cosine", 0.5) > 0.99
    assert found.quantile("cosine", 0) < 1 - 1e-9  # it is another precision


def test_both_explain_the_class_that_the_reference_predicts(
    folder: Path, paths: list[Path]
) -> None:
    """Not that of the shuffled network, which sees others; nor where targets are given."""
    reference, new = (opened(folder / name) for name in ("excitation.onnx", "excitation.7.onnx"))
    found = compare(new, reference, paths)
    explanation = reference([str(path) for path in paths])
    assert [image.target for image in found.images] == explanation.names
    assert found.quantile("class", 0) == 0
    asked = [(int(target) + 1) % 10 for target in explanation.targets]
    other = compare(new, reference, paths, targets=asked)
    for image, target, path in zip(other.images, asked, paths, strict=True):
        assert image.target == f"digit {target}"
        a, b = (one(str(path), target).pullback.ravel() for one in (new, reference))
        assert image.measured["cosine"] == pytest.approx(
            a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5
        )


def test_an_image_that_is_none_is_told_and_does_not_end_it(
    folder: Path, paths: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    reference = opened(folder / "excitation.onnx")
    found = compare(reference, reference, [broken, *paths[:2]])
    assert len(found.images) == 2
    ((path, problem),) = found.unreadable
    assert path == broken
    assert "broken.png' is" in problem
    with pytest.raises(InputError, match="none of 1 images can be read"):
        compare(reference, reference, [broken])


def test_a_share_of_the_images_may_drift_and_thresholds_are_the_callers() -> None:
    images = [ImageDrift(Path(f"{i}.png"), below=["ssim"] * (i < 2), margin=i) for i in range(10)]
    assert not Drift(images, {}, 0.1).passed
    assert Drift(images, {}, 0.2).passed
    assert [image.margin for image in Drift(images[::-1], {}, 0.2).worst] == list(range(10))


def test_a_threshold_is_held_to(folder: Path, paths: list[Path]) -> None:
    path = folder / "excitation.onnx"
    half, reference = opened(path, "float16"), opened(path)
    assert not compare(half, reference, paths[:2], thresholds={"cosine": 1.0}).passed
    with pytest.raises(InputError, match=r"a threshold is of cosine, .*, not of 'cosin'"):
        compare(half, reference, paths, thresholds={"cosin": 1})
    with pytest.raises(InputError, match="threshold of ssim is a number, not nan"):
        compare(half, reference, paths, thresholds={"ssim": float("nan")})
    with pytest.raises(InputError, match="allowed is a share from 0 to 1, not 7"):
        compare(half, reference, paths, allowed=7)
    with pytest.raises(InputError, match="targets are one for each of 12 images, not 1"):
        compare(half, reference, paths, targets=[3])


def test_what_cannot_be_compared_is_a_sentence(
    network: nn.Module, folder: Path, paths: list[Path], tmp_path: Path
) -> None:
    reference = opened(folder / "gradient.onnx")
    nine = nn.Sequential(*network[:-1], nn.Linear(128, 9))
    with pytest.raises(InputError, match="the reference has 10 classes, and the other 9"):
        compare(opened(write(nine, tmp_path / "9.onnx")), reference, paths)
    embedding = write(network, tmp_path / "e.onnx", objective="embedding")
    with pytest.raises(InputError, match="explains class, and the other embedding"):
        compare(opened(embedding), reference, paths)
    small = nn.Sequential(*network[:-2], nn.AdaptiveAvgPool2d(2), *network[-2:])
    write(small, tmp_path / "small.onnx", example=torch.zeros(1, 1, 20, 20))
    with pytest.raises(InputError, match=r"has the shape \[1, 24, 24\], and the other \[1, 20, 20"):
        compare(opened(tmp_path / "small.onnx"), reference, paths)


def test_an_explanation_that_overflows_is_a_drifted_image(
    network: nn.Module, folder: Path, paths: list[Path], tmp_path: Path
) -> None:
    large = copy.deepcopy(network)
    large[7].weight.data *= 1e30
    large[3].weight.data *= 1e30
    reference = folder / "excitation.onnx"
    found = compare(opened(write(large, tmp_path / "large.onnx")), opened(reference), paths[:2])
    assert found.share == 1
    assert "not finite" in found.images[0].problem
    json.dumps(found.record(), allow_nan=False)
    out = "-o", tmp_path / "out"
    status, said = run(tmp_path / "large.onnx", "--against", reference, "-i", paths[0], *out)
    assert status == 1
    assert f"{paths[0].name}: " in said
    assert "not finite" in said


def test_an_image_that_the_reference_cannot_explain_is_a_row_with_the_reason(
    network: nn.Module, folder: Path, paths: list[Path], tmp_path: Path
) -> None:
    """Not the end of it; but a class that there is not is a wrong call."""
    large = copy.deepcopy(network)
    large[7].weight.data *= 1e30
    large[3].weight.data *= 1e30
    reference = opened(write(large, tmp_path / "large.onnx"))
    new = opened(folder / "excitation.onnx")
    found = compare(new, reference, paths[:2], targets=[3, None])
    assert [image.target for image in found.images] == ["3", ""]
    for image in found.images:
        assert image.problem.startswith("the reference: ")
        assert "not finite" in image.problem
    assert not found.passed
    json.dumps(found.record(), allow_nan=False)
    write_page(found, new, reference, tmp_path / "drift.html")
    assert (tmp_path / "drift.html").read_text().count("the reference: ") == 2
    with pytest.raises(InputError, match="target 10 is out of range"):
        compare(new, reference, paths[:2], targets=[None, 10])


def test_the_page_shows_the_worst_first(folder: Path, paths: list[Path], tmp_path: Path) -> None:
    reference, new = (opened(folder / name) for name in ("excitation.onnx", "excitation.3.onnx"))
    found = compare(new, reference, paths)
    write_page(found, new, reference, tmp_path / "drift.html")
    page = (tmp_path / "drift.html").read_text()
    places = [page.index(f">{image.path.name}<span>") for image in found.worst]
    assert places == sorted(places)
    assert page.count("<figure>") == 5 * len(paths)
    assert "12 images have drifted, 10% may: failed" in page


def test_an_input_that_is_no_image(tmp_path: Path, paths: list[Path]) -> None:
    table = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    onnxplain.export(table, tmp_path / "t.onnx", example=torch.zeros(1, 4))
    with pytest.raises(BackendError, match="drift"):
        compare(*[opened(tmp_path / "t.onnx")] * 2, paths)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def test_the_command_fails_where_they_drifted_and_says_so(
    folder: Path, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit status is what CI asks for; the files are where it says."""
    monkeypatch.chdir(tmp_path)
    reference, images = folder / "excitation.onnx", ["--images", paths[0].parent]
    status, said = run(folder / "excitation.3.onnx", "--against", reference, *images)
    assert status == 1
    assert "12 of 12 images have drifted, 10% may: failed; evaluation/drift.html" in said
    record = json.loads(Path("evaluation/drift.json").read_text())
    assert not record["passed"]
    assert len(record["images"]) == 12
    half = ["--precision", "float16", "--provider", "cpu"]
    status, said = run(reference, "--against", reference, *images, *half, "-o", "half")
    assert status == 0
    assert "0 of 12 images have drifted, 10% may: passed" in said
    strict = ["--threshold", "cosine=1", "--threshold", "drifted=0", "-o", "half"]
    assert run(reference, "--against", reference, *images, *half, *strict)[0] == 1


def test_the_command_takes_labels_and_refuses_what_it_cannot_do(
    folder: Path, paths: list[Path], tmp_path: Path
) -> None:
    reference, labels = folder / "excitation.onnx", tmp_path / "labels.csv"
    labels.write_text(f"{paths[0].name},digit 7\n{paths[1].name},3\n")
    usual = [reference, "--against", reference, "-i", paths[0], "-i", paths[1], "-o", tmp_path]
    assert run(*usual, "--labels", labels)[0] == 0
    images = json.loads((tmp_path / "drift.json").read_text())["images"]
    assert [image["target"] for image in images] == ["digit 7", "digit 3"]
    for wrong in (["--threshold", "ssim"], ["--threshold", "likeness=1"], [reference]):
        assert run(*usual, *wrong)[0] == InputError.exit_code
    for ignored in (["-m", "focus"], ["--count", 1], ["--quick"], ["--seed", 0]):
        status, said = run(*usual, *ignored)
        assert status == InputError.exit_code
        assert "is of metrics, and --against of likeness" in said
    status, said = run(*usual[:-1], labels)
    assert status == InputError.exit_code
    assert "cannot write into" in said
    labels.write_text("of another folder.png,3\n")
    status, said = run(*usual, "--labels", labels)
    assert status == InputError.exit_code
    assert "no image has a label" in said
    alone = run(reference, "-i", paths[0], "--threshold", "ssim=1", "-o", tmp_path)
    assert alone[0] == InputError.exit_code
    assert "--against" in alone[1]
