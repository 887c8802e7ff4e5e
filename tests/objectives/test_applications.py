"""Folders, tables and films are explained whatever the objective is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute
import pyarrow.parquet
import pytest
from PIL import Image

from onnxplain.batch import Options
from onnxplain.batch.commit import Folder
from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.plan import Listing, Recipe, settle
from onnxplain.batch.run import _recipe
from onnxplain.batch.shard import ShardExplainer
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer
from onnxplain.runtime.pictures.markup import data_uri
from onnxplain.runtime.pictures.render import overlay
from onnxplain.runtime.report import write_report
from onnxplain.stream.run import explain_stream

from .kinds import BOX, IN_INPUT, PHOTOGRAPH, QUERY
from .test_commands import ran


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """One wide, one high, and one that is none."""
    paths = [tmp_path / name for name in ("photos/a.png", "photos/b.png", "photos/c.png")]
    paths[0].parent.mkdir()
    Image.fromarray(PHOTOGRAPH).save(paths[0])
    Image.fromarray(PHOTOGRAPH).transpose(Image.Transpose.ROTATE_90).save(paths[1])
    paths[2].write_bytes(b"none")
    return paths


def table(explainer: Explainer, recipe: Recipe, photographs: list[Path], out: Path) -> Any:
    folder = Folder(out)
    with folder.held():
        plan = settle(folder, recipe, list_items([str(photographs[0].parent)], Columns()))
        listing, shards = Listing(folder.listing), ShardExplainer(explainer, recipe, decoders=2)
        for shard in range(plan.shards):
            shards.explain(folder, shard, listing.shard(shard))
    return pyarrow.parquet.read_table(folder.table)


def recipe(explainer: Explainer, **options: Any) -> Recipe:
    assert explainer.path is not None
    return _recipe(explainer.path, Options(**options), {})


def test_a_table_of_objects(
    kinds: dict[str, Explainer],
    photographs: list[Path],
    tmp_path: Path,
) -> None:
    explainer = kinds["detector"]
    found = table(explainer, recipe(explainer), photographs, tmp_path / "out")
    first, second, none = found.to_pylist()
    for row, path in ((first, photographs[0]), (second, photographs[1])):
        expected = explainer(path)
        assert row["objective"] == pytest.approx(float(expected.objective[0]), rel=1e-5)
        assert row["target"] == expected.targets[0]
        assert row["name"] == str(expected.targets[0])
        size = Image.open(path).size
        assert 0 <= row["box"][0] < row["box"][2] <= size[0] + 64
        half = np.reshape(row["pullback"], expected.pullback.shape[1:]).astype(np.float32)
        np.testing.assert_allclose(
            half * row["pullback_scale"], expected.pullback[0], atol=1e-3 * row["pullback_scale"]
        )
    assert "not an image" in none["error"]
    assert {none[name] for name in ("objective", "target", "name", "box", "pullback")} == {None}


def test_a_table_of_what_lies_in_a_box(
    kinds: dict[str, Explainer],
    photographs: list[Path],
    tmp_path: Path,
) -> None:
    explainer = kinds["detector"]
    asked = recipe(explainer, inputs={"box": BOX})
    first, second, _ = table(explainer, asked, photographs, tmp_path / "out").to_pylist()
    expected = explainer(photographs[0], box=IN_INPUT)
    assert first["objective"] == pytest.approx(float(expected.objective[0]), rel=1e-5)
    np.testing.assert_allclose(first["box"], BOX, atol=1e-4)
    assert "within the image of 80 × 128 pixels" in second["error"]
    with pytest.raises(InputError, match="was begun with other inputs"):
        table(explainer, recipe(explainer), photographs, tmp_path / "out")


def test_a_table_of_vectors_has_them(
    kinds: dict[str, Explainer],
    photographs: list[Path],
    tmp_path: Path,
) -> None:
    explainer = kinds["vector"]
    asked = recipe(explainer, inputs={"query": QUERY}, store="heatmap")
    first, *_ = table(explainer, asked, photographs, tmp_path / "out").to_pylist()
    expected = explainer(photographs[0], query=QUERY)
    assert first["objective"] == pytest.approx(float(expected.objective[0]), rel=1e-5)
    np.testing.assert_allclose(first["output.output"], expected.outputs["output"][0], rtol=1e-5)
    assert "target" not in first
    with pytest.raises(InputError, match="needs 'query'"):
        ShardExplainer(explainer, replace(asked, inputs={}), 1)
    with pytest.raises(InputError, match="has no target"):
        ShardExplainer(explainer, replace(asked, target=1), 1)


def film(frames: list[Image.Image]) -> Any:
    shown = [SimpleNamespace(image=lambda f=f: f, due=0.0) for f in frames]
    return SimpleNamespace(frames=lambda: iter(shown[:1]), stop=lambda: None)


def streamed(explainer: Explainer, **given: Any) -> Image.Image:
    pages: list[Image.Image] = []
    sink: Any = SimpleNamespace(show=lambda page, frame: bool(pages.append(page)))
    frame = Image.fromarray(PHOTOGRAPH).resize((512, 320))
    explain_stream(film([frame]), explainer, [sink], inputs=given)
    return pages[0]


def white(page: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(page).min(axis=-1) == 255


def test_a_frame_shows_the_box(kinds: dict[str, Explainer]) -> None:
    box = [4 * side for side in BOX]
    page = streamed(kinds["detector"], box=box)
    left, top, right, bottom = box
    assert white(page)[top : bottom - 30, left].all()
    assert white(page)[top, left:right].all()


def test_a_frame_shows_the_region(kinds: dict[str, Explainer]) -> None:
    half = np.zeros((8, 8))
    half[:, :4] = 1
    page = streamed(kinds["map"], region=half)
    assert white(page)[60:250, 230:280].any(axis=1).all()
    assert not white(page)[:280, 300:].any()


def test_frames_of_vectors_and_numbers(kinds: dict[str, Explainer]) -> None:
    assert streamed(kinds["number"]).size == (512, 320)
    assert streamed(kinds["vector"], query=QUERY).size == (512, 320)
    with pytest.raises(InputError, match="needs 'query'"):
        streamed(kinds["vector"])


def test_boxes_on_the_command_line_are_the_photographs(
    kinds: dict[str, Explainer],
    photographs: list[Path],
    tmp_path: Path,
) -> None:
    command = ["explain", kinds["detector"].path, *photographs[:2], "-o", tmp_path / "why"]
    status, output = ran(*command, "--provider", "cpu", "--box", ",".join(map(str, BOX)))
    assert status == 1
    assert "within the image of 80 × 128 pixels" in output
    first, second = map(json.loads, (tmp_path / "why/predictions.jsonl").read_text().splitlines())
    np.testing.assert_allclose(first["targets"][0]["box"], BOX, atol=1e-4)
    expected = float(kinds["detector"](photographs[0], box=IN_INPUT).objective[0])
    assert first["targets"][0]["value"] == pytest.approx(expected, rel=1e-5)
    assert "error" in second


def test_a_report_of_objects_shows_their_boxes(
    kinds: dict[str, Explainer], photographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    failures = write_report(kinds["detector"], photographs, out, targets_per_image=2, steps=1)
    assert [path for path, _ in failures] == [photographs[2]]
    text = out.read_text()
    assert text.count("<section>") == 4
    row = kinds["detector"](photographs[0], -1).rows()[0]
    marked = data_uri(row.marked(overlay(row.photograph, row.heatmaps[0])))
    assert marked in text
    assert "%</span>" not in text
    assert row.number(row.targets[0][1]) in text
    with pytest.raises(InputError, match="targets per image are from 1 to 1"):
        write_report(kinds["vector"], photographs, out, targets_per_image=2)


def test_a_report_takes_what_the_objective_does(
    kinds: dict[str, Explainer], photographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    assert (
        len(write_report(kinds["vector"], photographs, out, steps=1, inputs={"query": QUERY})) == 1
    )
    assert "embedding" in out.read_text()
    with pytest.raises(InputError, match="needs 'query'"):
        write_report(kinds["vector"], photographs, out, steps=1)
