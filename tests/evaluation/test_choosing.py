"""Which explanation is chosen: by hand, and of a network that reads digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import InputError, SourceError
from onnxplain.evaluation.choosing import (
    QUALITIES,
    Candidate,
    Measured,
    best_of,
    candidates_of,
    choose,
    front,
)

from .digits import SIZE, trained, write_files


def measured(name: str, cost: float, *qualities: float) -> Measured:
    return Measured(Candidate(name), cost, dict(zip(QUALITIES, qualities, strict=True)))


CHEAP = measured("cheap", 1, 0.1, 0.1, -1.0)
GOOD = measured("good", 2, 0.9, 0.5, -0.5)
WORSE = measured("worse", 2, 0.8, 0.5, -0.5)
DEAR = measured("dear", 9, 0.9, 0.9, -0.6)


def test_the_front_is_what_no_other_is_as_good_as_and_better_somewhere() -> None:
    assert front([DEAR, WORSE, GOOD, CHEAP]) == [CHEAP, GOOD, DEAR]
    assert not GOOD.dominates(GOOD)
    unknown = measured("unknown", 2, 0.8, np.nan, -0.5)
    assert GOOD.dominates(unknown)
    assert not unknown.dominates(GOOD)


def test_the_chosen_one_ranks_best_on_average_within_the_cost() -> None:
    """Of three: good is first, second and first; dear is first, first and second: a tie, and good
    is cheaper."""
    assert best_of([DEAR, WORSE, GOOD, CHEAP]) is GOOD
    assert best_of([DEAR, WORSE, GOOD, CHEAP], 1.5) is CHEAP
    assert best_of([measured("better", 9, 0.9, 0.9, -0.4), GOOD]).candidate.name == "better"
    with pytest.raises(InputError, match=r"costs 1\.0 forward passes, and 0\.5 are allowed"):
        best_of([CHEAP, DEAR], 0.5)


def test_a_temperature_is_tried_where_a_method_has_one() -> None:
    made = candidates_of(["Excitation"], [0.3], [None])
    assert made == [Candidate("Excitation", 0.3)]
    made = candidates_of(["excitation", "gradient"], [0.3, 1.0], [None, "smoothgrad"])
    assert [one.name for one in made] == [
        "excitation, T = 0.3",
        "smoothgrad of excitation, T = 0.3",
        "excitation, T = 1",
        "smoothgrad of excitation, T = 1",
        "gradient",
        "smoothgrad of gradient",
    ]


def test_the_file_that_is_written_is_the_chosen_ones(tmp_path: Path) -> None:
    pytest.importorskip("quantus")
    paths = write_files(tmp_path / "digits", 3)
    options = {"example": torch.zeros(1, 1, SIZE, SIZE), "mean": [0.5], "std": [0.5]}
    out = tmp_path / "x.onnx"
    methods = ["gradient", "excitation", "attention-rollout"]
    found = choose(trained(), paths, out, methods=methods, options=options, count=3)
    assert [one.candidate.method for one in found.measured] == methods[:2]
    assert [*found.refused] == ["attention-rollout"]
    assert found.chosen in found.front
    assert onnxplain.load(out, "cpu").metadata.method == found.chosen.candidate.method
    onnx.checker.check_model(out)
    for one in found.measured:
        assert one.cost > 0.5
        assert np.isfinite([*one.qualities.values()]).all()
    with pytest.raises(SourceError):
        choose(trained(), paths, out, methods=["attention-rollout"], options=options)


def test_images_of_one_class_have_no_mosaics_and_are_chosen_by_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a broken one, of a graph that takes two at once and has its weights beside it."""
    monkeypatch.setattr("onnxplain.export.large.SINGLE_FILE", 1000)
    pytest.importorskip("quantus")
    (path,) = write_files(tmp_path / "digits", 1)
    broken, net = tmp_path / "broken.png", tmp_path / "net.onnx"
    broken.write_bytes(b"no picture")
    torch.onnx.export(trained(), (torch.zeros(2, 1, SIZE, SIZE),), net, dynamo=False)
    options = {"mean": [0.5], "std": [0.5]}
    asked: dict[str, Any] = {"methods": ["gradient", "guided"], "options": options}
    found = choose(net, [broken, path], tmp_path / "x.onnx", **asked)
    for one in found.measured:
        assert np.isnan(one.qualities["localisation"])
        assert np.isfinite([one.cost, one.qualities["stability"]]).all()
    assert {p.name for p in tmp_path.glob("x.onnx*")} == {"x.onnx", "x.onnx.data"}
    assert onnxplain.load(tmp_path / "x.onnx", "cpu")(path).logits.shape == (1, 10)
    with pytest.raises(InputError, match=r"none of 1 images can be used: .*broken\.png"):
        choose(net, [broken], tmp_path / "y.onnx", **asked)
    assert not (tmp_path / "y.onnx").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints all, and writes the graph and the plot beside it."""
    pytest.importorskip("quantus")
    monkeypatch.chdir(tmp_path)
    paths = write_files(tmp_path / "digits", 2)
    network = trained()
    torch.onnx.export(network, (torch.zeros(1, 1, SIZE, SIZE),), "net.onnx", dynamo=False)
    options = ["--methods", "gradient,excitation", "--mean", "0.5", "--std", "0.5", "-o", "x.onnx"]
    command = ["choose", "net.onnx", "-i", str(paths[0].parent), "--temperatures", "0.3,1"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for name in ("gradient", "excitation, T = 0.3", "excitation, T = 1", "front"):
        assert name in said
    chosen = onnxplain.load("x.onnx", "cpu").metadata
    assert f"x.onnx {chosen.method}" in said
    assert Image.open("x.png").width > 800
