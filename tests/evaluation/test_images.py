"""Which label and which mask is an image's, and masks that cannot be one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import InputError
from onnxplain.evaluation import evaluate
from onnxplain.evaluation.images import Sample, labels_of, listed
from onnxplain.evaluation.subject import Subject, opened
from onnxplain.runtime import find_images

from .small import MEAN, SIDE, STD


@pytest.fixture(scope="module")
def subject(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("forward")
    return opened(graphs["gradient"], "gradient", folder, "cpu", "float32", None, {})


def samples(
    subject: Subject, images: Path, masks: Path | None = None, **labels: str
) -> list[Sample]:
    of = {f"{name}.png": label for name, label in labels.items()}
    return listed(find_images(images), of, subject, None, 0, masks)


def write_mask(path: Path, light: int = 255, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, size[0] // 2 :] = light
    Image.fromarray(mask).save(path)


def test_images_called_alike_in_two_folders_have_the_masks_of_theirs(
    subject: Subject, images: Path, tmp_path: Path
) -> None:
    found, masks = tmp_path / "images", tmp_path / "masks"
    for part in ("a", "b"):
        shutil.copytree(images, found / part)
        write_mask(masks / part / "0.png")
    write_mask(masks / "b" / "deep" / "1.png")
    write_mask(masks / "2.bmp")
    of = {
        s.name: s.mask and s.mask.relative_to(masks).as_posix()
        for s in samples(subject, found, masks)
    }
    assert (of["a/0.png"], of["b/0.png"]) == ("a/0.png", "b/0.png")
    assert of["a/1.png"] == "b/deep/1.png"  # the only one of that name
    assert of["a/2.png"] == "2.bmp"
    assert of["a/3.png"] is None


def test_a_name_that_two_masks_have_and_no_folder_tells_apart_has_none(
    subject: Subject, images: Path, tmp_path: Path
) -> None:
    for part in ("a", "b"):
        write_mask(tmp_path / part / "0.png")
    assert [sample.mask for sample in samples(subject, images, tmp_path)] == [None] * 4


def test_a_mask_that_cannot_be_one_is_a_row_with_its_reason(
    graphs: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    """Quantus's pointing game gives a mask without anything light 1, the best score."""
    write_mask(tmp_path / "0.png")
    write_mask(tmp_path / "1.png", light=1)  # as many packages write them
    write_mask(tmp_path / "2.png", size=(SIDE, 2 * SIDE))
    (tmp_path / "3.png").write_bytes(b"no picture")
    metrics = ["pointing-game", "relevance-mass", "random-logit"]
    found = evaluate(graphs["gradient"], images, metrics=metrics, masks=tmp_path, provider="cpu")
    said = [
        "",
        "is dark wherever the network sees it",
        "16 × 32 pixels, and its",
        "is not an image",
    ]
    for image, error in enumerate(said):
        for score in found.scores[3 * image : 3 * image + 2]:
            assert (score.score is None) == bool(error)
            assert error in score.error
    assert np.isfinite(found.of("random-logit")).all()


def test_a_link_has_the_label_of_its_own_name(
    subject: Subject, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "cat.png").symlink_to(images / "0.png")
    (sample,) = samples(subject, tmp_path, cat="2")
    assert (sample.name, sample.target) == ("cat.png", 2)


def test_labels_of_other_images_are_an_error() -> None:
    paths = [Path("photos/0.png"), Path("photos/1.png")]
    assert labels_of(paths, {"photos/1.png": "7", "x.png": "2"}, ()) == [None, 7]
    assert labels_of(paths, {"0.png": "cat"}, ["cat"]) == ["cat", None]
    assert labels_of(paths, {}, ()) == [None, None]
    with pytest.raises(InputError, match=r"there is one of '0.jpg', and an image 'photos/0.png'"):
        labels_of(paths, {"0.jpg": "7"}, ())


def test_a_number_that_is_a_classs_name_is_that_class(
    network: nn.Module, images: Path, tmp_path: Path
) -> None:
    """Of classes called 2, 3, 5 and 7 the class "3" is the second, and 0 an index."""
    path, example = tmp_path / "x.onnx", torch.zeros(1, 3, SIDE, SIDE)
    given = {"example": example, "method": "gradient", "mean": MEAN, "std": STD}
    onnxplain.export(network, path, labels=["2", "3", "5", "7"], **given)  # type: ignore[call-overload]
    labels = {"0.png": "3", "1.png": "0", "2.png": "7", "3.png": "2"}
    asked = {"labels": labels, "metrics": ["random-logit"], "provider": "cpu"}
    found = evaluate(path, images, **asked)  # type: ignore[arg-type]
    assert [score.target for score in found.scores] == [1, 0, 3, 0]
    (tmp_path / "labels.csv").write_text("".join(f"{k},{v}\n" for k, v in labels.items()))
    options = ["-i", images, "--labels", tmp_path / "labels.csv", "-o", tmp_path / "out"]
    done = CliRunner().invoke(
        app, ["evaluate", str(path), "--against", *map(str, [path, *options])]
    )
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert [image["target"] for image in record["images"]] == ["3", "2", "7", "2"]


def test_an_image_that_has_a_label_and_cannot_be_read_has_no_class(
    subject: Subject, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    (sample,) = samples(subject, tmp_path, **{"0": "1"})
    assert sample.target == -1
    assert "is not an image" in sample.problem
