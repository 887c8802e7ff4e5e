"""What the table says of an image is what the runtime says of it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from onnxplain.batch.commit import Folder
from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.plan import Listing, Recipe, settle
from onnxplain.batch.shard import ShardExplainer
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer

from .lake import encoded, make_lake

DAMAGED = 3


def explain(explainer: Explainer, recipe: Recipe, lake: Path, out: Path) -> pyarrow.Table:
    """All shards of a lake, in this process."""
    folder = Folder(out)
    with folder.held():
        plan = settle(folder, recipe, list_items([str(lake)], Columns()))
        listing, shards = Listing(folder.listing), ShardExplainer(explainer, recipe, decoders=2)
        for shard in range(plan.shards):
            record = shards.explain(folder, shard, listing.shard(shard))
            assert record == folder.committed(shard)
    return pyarrow.parquet.read_table(folder.table)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "lake", 13)


def good_rows(table: pyarrow.Table) -> pyarrow.Table:
    return table.filter(pyarrow.compute.is_null(table["error"]))


def pullbacks(table: pyarrow.Table) -> np.ndarray:
    """Scaled back, float32 [N,C,H,W]."""
    half = table["pullback"].combine_chunks().to_numpy_ndarray()
    scale = table["pullback_scale"].to_numpy()
    return half.astype(np.float32) * scale[:, None, None, None]


def test_rows_are_the_images_in_their_order(explainer, recipe, lake, tmp_path):
    table = explain(explainer, recipe, lake, tmp_path / "out")
    assert table["index"].to_pylist() == list(range(13))
    assert table["id"].to_pylist() == sorted(map(str, lake.rglob("*.png")))


def test_a_row_holds_the_runtimes_numbers(explainer, recipe, lake, tmp_path):
    table = good_rows(explain(explainer, recipe, lake, tmp_path / "out"))
    expected = explainer(table["id"].to_pylist())
    np.testing.assert_allclose(table["logits"].to_pylist(), expected.logits, atol=1e-6)
    assert table["target"].to_pylist() == expected.targets.tolist()
    top = [[name for name, _ in row] for row in expected.labels(recipe.top)]
    assert table["top_names"].to_pylist() == top
    best = [row[0] for row in table["top_probabilities"].to_pylist()]
    np.testing.assert_allclose(best, expected.probabilities.max(axis=1), rtol=1e-5)
    stored = pullbacks(table)
    assert stored.shape == expected.pullback.shape
    most = np.abs(expected.pullback).max(axis=(1, 2, 3), keepdims=True)
    assert np.all(np.abs(stored - expected.pullback) <= 2**-11 * most)


def test_a_small_pullback_keeps_its_precision_in_half_floats(explainer, recipe, lake, tmp_path):
    class Faint:
        """The explainer with pullbacks that float16 would round to zero."""

        def __getattr__(self, name: str) -> Any:
            return getattr(explainer, name)

        def explain_batch(self, *args: Any) -> Any:
            explanation = explainer.explain_batch(*args)
            return replace(explanation, pullback=1e-12 * explanation.pullback)

    table = good_rows(explain(Faint(), recipe, lake, tmp_path / "out"))
    expected = 1e-12 * explainer(table["id"].to_pylist()).pullback
    np.testing.assert_allclose(pullbacks(table), expected, rtol=2e-3, atol=2**-11 * expected.max())


def test_a_damaged_image_costs_its_row_alone(explainer, recipe, lake, tmp_path):
    table = explain(explainer, recipe, lake, tmp_path / "out")
    errors = table["error"].to_pylist()
    assert [i for i, error in enumerate(errors) if error] == [DAMAGED]
    assert "damaged or cut short" in errors[DAMAGED]
    row = table.slice(DAMAGED, 1).to_pylist()[0]
    assert row["id"].endswith("0003.png")
    assert {row[name] for name in ("target", "logits", "pullback", "top_names")} == {None}


def test_a_shard_of_damaged_images_alone(explainer, recipe, tmp_path):
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/a.png").write_bytes(b"")
    table = explain(explainer, recipe, tmp_path / "lake", tmp_path / "out")
    assert table["error"].null_count == 0
    assert table["logits"].null_count == 1


def test_an_explanation_that_is_not_finite_is_an_error(explainer, recipe, lake, tmp_path):
    class Overflowing:
        def __getattr__(self, name: str) -> Any:
            return getattr(explainer, name)

        def explain_batch(self, *args: Any) -> Any:
            explanation = explainer.explain_batch(*args)
            explanation.pullback[0, 0, 0, 0] = np.nan  # of each run's first image
            return explanation

    table = explain(Overflowing(), recipe, lake, tmp_path / "out")
    said = [i for i, error in enumerate(table["error"].to_pylist()) if error and "finite" in error]
    assert said == [0, 2, 4, 5, 7, 9, 10, 12]  # runs of two within shards of five
    assert len(pullbacks(good_rows(table))) == 13 - len(said) - 1


def test_heatmaps_are_the_runtimes(explainer, recipe, lake, tmp_path):
    recipe = replace(recipe, store="heatmap")
    table = good_rows(explain(explainer, recipe, lake, tmp_path / "out"))
    expected = explainer(table["id"].to_pylist()).heatmap()
    for png, heat in zip(table["heatmap"].to_pylist(), expected, strict=True):
        np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(png))) / 255, heat, atol=4e-3)


def test_the_same_images_give_the_same_bytes(explainer, recipe, lake, tmp_path):
    for out in ("one", "two"):
        explain(explainer, recipe, lake, tmp_path / out)
    for part in Folder(tmp_path / "one").table.iterdir():
        assert part.read_bytes() == (tmp_path / "two/table" / part.name).read_bytes()


def test_tar_files_and_tables_give_what_a_folder_gives(explainer, recipe, lake, tmp_path):
    numbers = [i for i in range(13) if i != DAMAGED]
    with tarfile.open(tmp_path / "lake.tar", "w") as tar:
        for path in sorted(lake.rglob("*.png")):
            tar.add(path, f"{path.stem}.png")
    rows = [encoded(i) if i in numbers else b"no image" for i in range(13)]
    pyarrow.parquet.write_table(
        pyarrow.table({"image": pyarrow.array([*rows, None])}),
        tmp_path / "lake.parquet",
        row_group_size=4,
    )
    expected = good_rows(explain(explainer, recipe, lake, tmp_path / "out"))
    for source, damaged in (("lake.tar", [DAMAGED]), ("lake.parquet", [DAMAGED, 13])):
        table = explain(explainer, recipe, tmp_path / source, tmp_path / f"{source}.out")
        errors = table["error"].to_pylist()
        assert [i for i, error in enumerate(errors) if error] == damaged
        assert good_rows(table)["logits"].equals(expected["logits"])
        np.testing.assert_array_equal(pullbacks(good_rows(table)), pullbacks(expected))


def test_a_target_that_the_graph_does_not_have_is_an_error(explainer, recipe):
    with pytest.raises(InputError, match="target 7 is out of range"):
        ShardExplainer(explainer, replace(recipe, target=7), decoders=1)
