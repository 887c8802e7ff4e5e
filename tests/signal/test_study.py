"""A small study from beginning to end, and the commands."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.errors import InputError, SourceError
from onnxplain.signal import training
from onnxplain.signal.data import open_data
from onnxplain.signal.report import write_report
from onnxplain.signal.settings import Settings
from onnxplain.signal.study import Study, run_study
from onnxplain.signal.training import Outcome
from onnxplain.signal.weights import save_autoencoder

from .small import Singular, autoencoder, class_folders

CLI = CliRunner()

pytestmark = pytest.mark.xdist_group("study")  # what they share takes long to make


def study_of(data: Path, **changes: Any) -> Study:
    small = {"size": 16, "autoencoder": "segnet-tiny", "epochs": 2, "tune_epochs": 1, "batch": 4}
    settings = Settings(str(data), **(small | changes))
    return Study(settings, ("plain", "dense"), classifier_epochs=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("study") / "data", classes=3, pictures=9, side=20)


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study done, with its page."""
    folder = tmp_path_factory.mktemp("study") / "done"
    results = run_study(study_of(data), folder, "cpu")
    write_report(study_of(data), results, folder, "cpu", folder / "report.html")
    return folder


def test_a_study_goes_on_where_it_stopped_to_the_same_results(data: Path, folder: Path) -> None:
    before = (folder / "results.json").read_bytes()
    shutil.rmtree(folder / "signals" / "dense")
    for file in ("graphs/signal-dense.onnx", "measured/3.npz", "results.json"):
        (folder / file).unlink()
    told: list[str] = []
    run_study(study_of(data), folder, "cpu", lambda what, *_: told.append(what))
    assert not [what for what in told if "plain" in what]
    assert [what for what in told if what == "measuring dense"]
    assert (folder / "results.json").read_bytes() == before


def test_a_study_goes_on_in_another_folder_and_names_what_it_cannot_measure(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    results = run_study(study_of(data), moved, "cpu")
    assert (moved / "results.json").read_bytes() == (folder / "results.json").read_bytes()
    shutil.rmtree(moved / "measured")
    corrupt = data / "class0" / "0.png"
    whole = corrupt.read_bytes()
    try:
        corrupt.write_bytes(whole[:100])
        without = run_study(study_of(data), moved, "cpu")
    finally:
        corrupt.write_bytes(whole)
    assert (results.skipped, without.skipped) == ([], [str(corrupt)])
    assert without.pictures == results.pictures - 1


@pytest.mark.usefixtures("trusting")
def test_a_classifier_that_cannot_be_exported_is_known_before_the_training(
    data: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "singular.pt")
    torch.jit.script(Singular()).save(file)
    with pytest.raises(SourceError, match="could not export"):
        run_study(dataclasses.replace(study_of(data), classifiers=("plain", file)), tmp_path, "cpu")
    assert not (tmp_path / "autoencoder").exists()
    small = ["--size", "16", "--autoencoder", "segnet-tiny", "-o", str(tmp_path / "run")]
    done = CLI.invoke(app, ["--trust", "signal", "train", str(data), "-c", file, *small])
    assert done.exit_code == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.sweep
def test_a_study_from_weights_of_another_size_needs_no_epochs(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    small = folder / "classifiers"
    start = tmp_path / "larger.pt"
    save_autoencoder(autoencoder("segnet-tiny", 32), start)
    wanted = dataclasses.replace(
        study_of(data, start=str(start), epochs=0),
        classifiers=(str(small / "plain.pt"), str(small / "dense.pt")),
    )
    results = run_study(wanted, tmp_path / "study", "cpu")
    assert results.names == ["plain", "dense"]


@pytest.mark.sweep
def test_the_digits_keep_their_accuracy_on_their_own_signal(tmp_path: Path) -> None:
    names = ["plain", "residual", "dense"]
    given = [part for name in names for part in ("-c", name)]
    done = CLI.invoke(app, ["signal", "study", "digits", *given, "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["names"], results["pictures"]) == (names, 599)
    own = np.diag(results["matrix"])
    assert (np.array(results["original"]) > 0.9).all()
    assert (own >= np.array(results["original"]) - 0.02).all()
    assert results["order"]["verdict"] in done.output.replace("\n", " ")
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in names)
    assert "Whose signal serves whom" in page


@pytest.mark.sweep
def test_a_study_is_the_same_under_a_seed(data: Path, folder: Path, tmp_path: Path) -> None:
    run_study(study_of(data), tmp_path / "again", "cpu")
    assert (tmp_path / "again" / "results.json").read_bytes() == (
        folder / "results.json"
    ).read_bytes()


def test_a_folder_of_another_study_is_refused(data: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        run_study(study_of(data, seed=1), folder, "cpu")
    with pytest.raises(InputError, match="two classifiers at least"):
        run_study(dataclasses.replace(study_of(data), classifiers=("plain",)), folder, "cpu")


def test_the_page_shows_everything_and_needs_nothing_else(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    for part in ("The order", "Whose signal serves whom", "Information", "Frequencies", "Examples"):
        assert part in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.findall(r"\$[a-z_]+", page)
    assert page.count('class="pixels"') == 6 * (1 + 2 * 3)


def test_what_is_measured_is_what_the_graphs_say(data: Path, folder: Path) -> None:
    from onnxplain.signal.compiled import open_graph
    from onnxplain.signal.measurement import Measurement

    pixels, labels, _ = next(open_data(str(data), 16).test.batches(100))
    seen = open_graph(folder / "graphs" / "signal-dense.onnx", "cpu").run(pixels)
    logits = open_graph(folder / "graphs" / "classifier-plain.onnx", "cpu").run(
        seen["reconstruction"]
    )["logits"]
    measured = Measurement.read(folder / "measured" / "3.npz")  # originals, untuned, plain, dense
    assert np.array_equal(measured.right[0], logits.argmax(1) == labels)


def test_show_writes_a_picture_and_reports_what_it_cannot_read(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    graph = folder / "graphs" / "signal-plain.onnx"
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.open(data / "class0" / "0.png").save(photos / "a.png")
    done = CLI.invoke(
        app, ["signal", "show", str(graph), str(photos), "-o", str(tmp_path / "x.png")]
    )
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 3 * 192
    (photos / "b.png").write_bytes(b"no picture")
    done = CLI.invoke(
        app, ["signal", "show", str(graph), str(photos), "-o", str(tmp_path / "y.png")]
    )
    assert done.exit_code == 1
    assert (tmp_path / "y.png").exists()
    assert "b.png" in done.output


def test_train_and_export_from_the_command_line(data: Path, folder: Path, tmp_path: Path) -> None:
    small = ["--size", "16", "--autoencoder", "segnet-tiny", "--epochs", "1", "--tune-epochs", "1"]
    classifier = str(folder / "classifiers" / "plain.pt")
    call = ["signal", "train", str(data), "-c", classifier, "-o", str(tmp_path / "run"), *small]
    done = CLI.invoke(app, call)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "signal.onnx").is_file()
    again = CLI.invoke(app, call)
    assert again.exit_code == 4
    assert "--resume" in again.output
    weights = str(tmp_path / "run" / "autoencoder.pt")
    done = CLI.invoke(app, ["signal", "export", weights, "-o", str(tmp_path / "a.onnx")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.onnx").is_file()


def test_only_the_first_of_several_processes_fails_for_what_was_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data("digits", 16)
    monkeypatch.setattr(
        training, "train", lambda *_, **__: Outcome(autoencoder(), data, ["a.png"], first=False)
    )
    done = CLI.invoke(app, ["signal", "train", "digits", "-o", str(tmp_path / "run")])
    assert (done.exit_code, done.output.strip()) == (0, "")


def test_wrong_classes_and_unknown_classifiers_end_in_a_sentence(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    two = class_folders(tmp_path / "two")
    small = ["--size", "16", "--autoencoder", "segnet-tiny", "-o", str(tmp_path / "run")]
    plain = str(folder / "classifiers" / "plain.pt")
    done = CLI.invoke(app, ["signal", "train", str(two), "-c", plain, *small])
    assert done.exit_code == 4
    assert "has 2 classes" in " ".join(done.output.split())
    done = CLI.invoke(app, ["signal", "train", str(two), "-c", "resnet5", *small])
    assert done.exit_code == 3
    assert "no network 'resnet5'" in " ".join(done.output.split())
