"""A batch run over photographs of several sizes, with files that take them as they are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.batch import Options, explain_lake
from onnxplain.batch.commit import Folder
from onnxplain.batch.plan import Recipe
from onnxplain.errors import BackendError
from onnxplain.runtime.onnx_file import digest

from ..batch.test_shard import explain, pullbacks
from .files import noise

SIZES = [(40, 36), (58, 46), (40, 36), (34, 90), (58, 46)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    for i, (height, width) in enumerate(SIZES):
        small = noise(5, 4, 3, seed=i)
        pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "5.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("kind", ["rgb", "bgr"])
def test_a_table_is_that_of_the_same_network_without_preprocessing(
    kinds: dict[str, Path], lake: Path, tmp_path: Path, kind: str
) -> None:
    recipe = Recipe(
        model=digest(kinds[kind]),
        provider="cpu",
        precision="float32",
        temperature=None,
        target=-1,
        top=2,
        store="pullback",
        batch_size=4,
        shard_size=6,
        image_column=None,
    )
    explainer = onnxplain.load(kinds[kind], "cpu", threads=1)
    table = explain(explainer, recipe, lake, tmp_path / "out")
    assert [error is None for error in table["error"].to_pylist()] == [True] * 5 + [False]
    images = [np.asarray(Image.open(path)) for path in table["id"].to_pylist()[:5]]
    expected = onnxplain.load(kinds["plain"], "cpu", threads=1)(images)
    logits = np.array(table["logits"].to_pylist()[:5])
    np.testing.assert_allclose(logits, expected.logits, atol=1e-3 * np.abs(expected.logits).max())
    found = pullbacks(table.slice(0, 5)).reshape(5, -1)
    wanted = expected.pullback.reshape(5, -1)
    cosines = (
        (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    )
    assert (cosines > 0.999).all()


def test_pullbacks_of_several_sizes_are_no_column(
    kinds: dict[str, Path], lake: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="without geometry='photograph'"):
        explain_lake(kinds["whole"], [str(lake)], tmp_path / "out", Options())
    assert not Folder(tmp_path / "out").path.exists()
