"""Grids, tuning, reports: what people look at."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import AscentDefaults, Metadata
from onnxplain.errors import InputError
from onnxplain.runtime import counterfactuals
from onnxplain.runtime.tune import Tuning, tune

from .runtime.conftest import explain_graph


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "lite0.explain.onnx"
    onnxplain.export("efficientnet-lite0", path, live_temperature=True, step=True)
    return path


def test_accentuate_draws_images_by_their_classes_and_a_random_one(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    code, text = run("accentuate", lite0, photo_folder, "-o", tmp_path / "g.png", "--steps", 2)
    assert code == 0, text
    assert "of 12 targets more probable" in text  # 3 images × (3 classes + a random one)
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.width > 5 * 224
        assert picture.height > 3 * 224


def test_accentuate_compares_methods_and_animates(
    lite0: Path, live: Path, photo_folder: Path, tmp_path: Path
) -> None:
    image, grid, film = photo_folder / "coffee.jpg", tmp_path / "g.png", tmp_path / "f.gif"
    options = ["-t", "cup", "--beside", lite0, "--animate", film, "--steps", 2, "--eps", 0]
    code, text = run("accentuate", live, image, "-o", grid, "--temperature", 0.8, *options)
    assert code == 0, text
    with Image.open(film) as frames:
        assert frames.n_frames == 2
    with Image.open(grid) as picture:
        assert picture.height > 2 * 224


def test_what_stands_beside_ascends_as_the_first_and_parameters_are_live(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph(name: str, ascent: AscentDefaults) -> Path:
        model = explain_graph(live_temperature=True)
        props = {prop.key: prop.value for prop in model.metadata_props}
        metadata = replace(Metadata.from_props(props), ascent=ascent)
        onnx.helper.set_model_props(model, metadata.to_props())
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    given, titles = [], []
    ascend, draw = counterfactuals.accentuate, counterfactuals.grid

    def spy(*of: Any, **options: Any) -> Any:
        given.append(options)
        return ascend(*of, **options)

    def drawn(rows: Any, columns: Any, names: Any) -> Image.Image:
        titles.extend(names)
        return draw(rows, columns, names)

    monkeypatch.setattr(counterfactuals, "accentuate", spy)
    monkeypatch.setattr(counterfactuals, "grid", drawn)
    first = graph("first.onnx", AscentDefaults(2, 3.0, None))
    second = graph("second.onnx", AscentDefaults(4, 5.0, 6.0))
    command = ["accentuate", first, photo_folder / "coffee.jpg", "-o", tmp_path / "g.png", "-t", 1]
    code, text = run(*command, "--beside", second, "--param", "temperature=0.4")
    assert code == 0, text
    assert [(each["steps"], each["alpha"], each["eps"]) for each in given] == [(2, 3.0, None)] * 2
    assert [each["temperature"] for each in given] == [{"temperature": 0.4}] * 2
    assert titles == ["gradient\nT = 0.4"] * 2
    before, after = re.findall(r"\d+\.\d%", text)[1:]
    assert before != after
    code, text = run(*command, "--param", "temperature=0.4", "--temperature", 0.5)
    assert (code, "given twice" in text) == (InputError.exit_code, True)


def test_accentuate_refuses_a_still_format_for_a_film(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    image = photo_folder / "coffee.jpg"
    out = ["-o", tmp_path / "g.png", "--animate", tmp_path / "f.jpg", "--steps", 1]
    code, text = run("accentuate", lite0, image, *out)
    assert code == 4
    assert ".gif" in text


def test_tuning_takes_the_softest_temperature_that_still_climbs(
    live: Path, photographs: dict[str, np.ndarray]
) -> None:
    tried = [0.3, 0.9, 3.0]
    images = [photographs["chelsea"], photographs["coffee"]]
    seen: list[int] = []
    found = tune(
        onnxplain.load(live, threads=1), images, classes=4, temperatures=tried, progress=seen.append
    )
    assert found.temperature == 0.9
    assert found.raised[1] >= 0.9 > found.raised[2]
    assert found.pairs == 8
    assert seen == [1, 2, 3]
    assert (np.abs(found.shift_stability) <= 1).all()
    assert (found.noise_stability > 0).all()
    assert (found.sensitivity > 0).all()


def test_tuning_needs_a_live_temperature(lite0: Path, photographs: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="live_temperature=True"):
        tune(onnxplain.load(lite0), [photographs["coffee"]])


def fake_tuning(*_: object, **__: object) -> Tuning:
    curve = np.array([1.0, 0.5])
    return Tuning(0.8, np.array([0.8, 1.6]), curve, curve, curve, curve, curve, 6)


def test_tune_prints_and_plots_the_curves(
    live: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxplain.tuning.tune", fake_tuning)
    code, text = run("tune", live, photo_folder, "-o", tmp_path / "curves.png")
    assert code == 0, text
    assert "temperature 0.8 (6 pairs)" in text
    with Image.open(tmp_path / "curves.png") as plot:
        assert np.asarray(plot).std() > 10


def test_export_with_temperature_auto_records_the_tuned_one(
    lite0_forward: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned.onnx"
    assert run("export", lite0_forward, "-o", out, "--temperature", "auto")[0] == 4
    monkeypatch.setattr("onnxplain.tuning.tune", fake_tuning)
    options = ["--temperature", "auto", "--images", photo_folder]
    code, text = run("export", lite0_forward, "-o", out, *options)
    assert code == 0, text
    assert onnxplain.load(out).metadata.parameters == {"temperature": 0.8}


@pytest.mark.sweep
def test_tune_on_four_photographs_lands_where_the_paper_would(
    live: Path, photo_folder: Path, tmp_path: Path
) -> None:
    """The whole grid of temperatures: minutes."""
    import skimage.data

    moped = Path(skimage.data.__file__).parent / "motorcycle_left.png"
    code, text = run("tune", live, photo_folder, moped, "-o", tmp_path / "curves.png")
    assert code == 0, text
    found = float(text.split("temperature ")[-1].split()[0])
    assert 0.5 <= found <= 1.2


def test_report_is_one_page_and_names_what_it_could_not_read(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    (photo_folder / "text.png").write_text("no image")
    page = tmp_path / "report.html"
    code, text = run("report", lite0, photo_folder, "-o", page, "--steps", 1)
    assert code == 1
    assert "3 of 4 images" in text
    html = page.read_text()
    assert "espresso" in html
    assert "text.png" in html
    assert json.dumps("http://")[1:-1] not in html
