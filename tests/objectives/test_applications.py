"""Folders, tables and films are explained whatever the objective is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
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
from onnxplain.runtime import Explainer, accentuate
from onnxplain.runtime.counterfactuals import Grid
from onnxplain.runtime.inputs.batches import box_in_input
from onnxplain.runtime.inputs.objective import on_photograph, on_photographs
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.markup import data_uri
from onnxplain.runtime.report import OVERLAID, write_report
from onnxplain.runtime.tune import tune
from onnxplain.stream.run import explain_stream

from .kinds import BOX, IN_INPUT, PHOTOGRAPH, QUERY
from .networks import exported, images, vector
from .test_commands import ran
from .test_maps import network


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
    marked = data_uri(row.drawn(0, OVERLAID, Canvas.of_network(row.photograph))[0])
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


def test_a_grid_of_what_raises_the_objective(
    kinds: dict[str, Explainer], photographs: list[Path], tmp_path: Path
) -> None:
    explainer, seen = kinds["detector"], photographs[:1]
    grid = Grid.of(explainer, seen, None, {"box": IN_INPUT})
    start = explainer(seen, box=IN_INPUT)
    assert grid.targets[0] == start.targets[0]
    assert len(grid.targets) == 2  # and a random one
    ascent = grid.ascend(explainer, None, steps=1)
    expected = accentuate(explainer, seen, grid.targets[1], 1, inputs={"box": IN_INPUT})
    np.testing.assert_allclose(ascent.end[1], expected.end[0], atol=1e-6)
    assert f"to {ascent.after[1]:.4g}" in grid.told(ascent)[0]
    command = ["accentuate", explainer.path, photographs[0], "-o", tmp_path / "g.png", "--steps", 1]
    status, text = ran(*command, "--provider", "cpu", "--box", ",".join(map(str, BOX)), "-t", -1)
    assert status == 0, text
    assert f"{start.objective[0]:.4g}: target -1 {start.objective[0]:.4g} to" in text
    assert "%" not in text
    status, text = ran(*command, "--provider", "cpu", "--query", "q.npy")
    assert (status, "has no input 'query'" in text) == (InputError.exit_code, True)


def test_a_file_beside_has_the_box_where_it_sees_it(
    kinds: dict[str, Explainer],
    photographs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explainer, other = kinds["detector"], tmp_path / "other.explain.onnx"
    assert explainer.path is not None
    pre = explainer.metadata.preprocessing
    closer = replace(pre, resize=2 * pre.resize)
    model = onnx.load(explainer.path)
    onnx.helper.set_model_props(model, replace(explainer.metadata, preprocessing=closer).to_props())
    onnx.save(model, other)
    boxes = []

    def kept(*given: Any, **options: Any) -> Any:
        boxes.append(options["inputs"]["box"])
        return accentuate(*given, **options)

    monkeypatch.setattr("onnxplain.runtime.counterfactuals.accentuate", kept)
    command = ["accentuate", explainer.path, photographs[0], "--beside", other, "--steps", 1]
    command += ["-o", tmp_path / "g.png", "--provider", "cpu", "--box", ",".join(map(str, BOX))]
    status, text = ran(*command, "-t", -1)
    assert status == 0, text
    size = Image.open(photographs[0]).size
    for (box,), seen in zip(boxes, (pre, closer), strict=True):
        np.testing.assert_allclose(box, box_in_input(np.array(BOX), size, seen), rtol=1e-6)


def test_a_grid_of_an_objective_without_targets_has_one_column(kinds: dict[str, Explainer]) -> None:
    explainer, x = kinds["vector"], list(images().numpy())
    grid = Grid.of(explainer, x, None, {"query": QUERY})
    assert (grid.targets, grid.names) == ([None], ["embedding"])
    ascent = grid.ascend(explainer, None, steps=1)
    expected = accentuate(explainer, x, steps=1, inputs={"query": QUERY})
    np.testing.assert_array_equal(ascent.end, expected.end)
    assert (
        grid.draw([explainer], [ascent], [None]).height
        > 2 * explainer.metadata.preprocessing.height
    )
    with pytest.raises(InputError, match="has no target"):
        Grid.of(explainer, x, [1], {"query": QUERY})


def test_temperatures_are_tuned_on_any_objective() -> None:
    live = {"method": "excitation", "live_temperature": True}
    x, tried = list(images().numpy()), [0.1, 0.3]
    numbers = exported(vector(4), objective="value", **live)
    found = tune(numbers, x, classes=3, share=0, temperatures=tried, inputs={"direction": -1})
    assert (found.scalar, found.pairs, found.temperature) == ("objective", 6, 0.3)
    assert np.isfinite(found.sensitivity).all()
    climbed = accentuate(numbers, x, 0, temperature=0.1, inputs={"direction": -1})
    assert (climbed.gain > 0).all()
    similar = exported(vector(5), objective="embedding", **live)
    found = tune(similar, x, share=0, temperatures=tried, inputs={"query": QUERY})
    assert found.pairs == 2
    assert np.isnan(found.sensitivity).all()
    assert np.isfinite(found.shift_stability).all()
    with pytest.raises(InputError, match="needs 'query'"):
        tune(similar, x, temperatures=tried)


def test_what_lies_in_a_region_is_not_shifted() -> None:
    """The photograph would move, and the region not."""
    live = {"method": "excitation", "live_temperature": True}
    explainer = exported(network(), **live)
    x, left = list(images().numpy()), np.zeros((8, 8))
    left[:, :4] = 1
    of_all = tune(explainer, x, classes=1, share=0, temperatures=[0.1], steps=1)
    assert np.isfinite(of_all.shift_stability).all()
    found = tune(
        explainer, x, classes=1, share=0, temperatures=[0.1], steps=1, inputs={"region": left}
    )
    assert np.isnan(found.shift_stability).all()
    assert np.isfinite(found.noise_stability).all()


def test_boxes_are_in_pixels_of_each_photograph(
    kinds: dict[str, Explainer], photographs: list[Path]
) -> None:
    metadata = kinds["detector"].metadata
    low = [10, 10, 60, 60]
    placed = on_photographs(metadata, {"box": low}, photographs[:2])["box"]
    for row, size in zip(placed, [(128, 80), (80, 128)], strict=True):
        expected = box_in_input(np.array(low), size, metadata.preprocessing)
        np.testing.assert_array_equal(row, expected)
        as_row = on_photograph(metadata, {"box": [low]}, size)["box"]  # as JSON may have it
        np.testing.assert_array_equal(as_row, expected)
    with pytest.raises(InputError, match="within the image of 80 × 128 pixels"):
        on_photographs(metadata, {"box": BOX}, photographs[:2])
