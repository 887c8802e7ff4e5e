"""An evaluation from the command line and from Python: interrupted, broken, wrongly asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.errors import InputError
from onnxplain.evaluation import evaluate
from onnxplain.evaluation.store import JSON, PAGE, TABLE, UNFINISHED

pytest.importorskip("quantus")

METRICS = ["faithfulness-estimate", "random-logit", "focus"]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_interrupted_and_resumed_it_gives_the_same_table(
    graphs: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    files = [graphs["gradient"], graphs["excitation"]]
    given = {"metrics": METRICS, "provider": "cpu"}
    evaluate(files, images, out=tmp_path / "whole", **given)  # type: ignore[arg-type]

    def interrupt(done: int, total: int) -> None:
        assert total == 4 * 2 * 3
        if done == 10:
            raise KeyboardInterrupt

    for _ in range(2):  # the second time before a score is added
        with pytest.raises(KeyboardInterrupt):
            evaluate(files, images, out=tmp_path / "cut", progress=interrupt, **given)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [UNFINISHED]
    resumed = evaluate(files, images, out=tmp_path / "cut", **given)  # type: ignore[arg-type]
    assert resumed.earlier == 10
    for name in (TABLE, JSON):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {TABLE, JSON, PAGE}
    again = evaluate(files, images, out=tmp_path / "cut", **given)  # type: ignore[arg-type]
    assert again.earlier == len(again.scores) == 24


def test_scores_do_not_depend_on_what_else_is_evaluated(
    graphs: dict[str, Path], images: Path
) -> None:
    """But mosaics do, which are made of the other images."""
    alone = evaluate(graphs["excitation"], images / "2.png", metrics=["infidelity"], provider="cpu")
    among = evaluate(
        [graphs["gradient"], graphs["excitation"]],
        images,
        metrics=["random-logit", "infidelity"],
        provider="cpu",
    )
    np.testing.assert_allclose(among.of("infidelity")[1, 2], alone.of("infidelity")[0, 0], 1e-5)


def test_a_broken_image_is_a_row_with_its_reason(
    graphs: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    labels.write_text("image,label\n0.png,1\nimages/3.png,2\n")
    command = [graphs["gradient"], "-i", folder, "-o", out, "--labels", labels, "--provider", "cpu"]
    status, output = run(*command, "-m", "random-logit,max-sensitivity")
    assert status == 1
    assert output.count("broken.png: ") == 1
    rows = parquet.read_table(out / TABLE).to_pylist()
    assert [row["image"] for row in rows[::2]] == ["0.png", "1.png", "2.png", "3.png", "broken.png"]
    assert {row["target"] for row in rows if row["image"] == "0.png"} == {1}
    assert {row["target"] for row in rows if row["image"] == "3.png"} == {2}
    for row in rows:
        assert (row["score"] is None) == bool(row["error"]) == (row["image"] == "broken.png")
    page = (out / PAGE).read_text()
    assert "broken.png: " in page
    means = json.loads((out / JSON).read_text())["metrics"]["random-logit"]["means"]["gradient"]
    scores = [row["score"] for row in rows if row["metric"] == "random-logit" and row["score"]]
    assert means["images"] == 4
    np.testing.assert_allclose(means["mean"], np.mean(scores))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["-m", "beauty"], "no metric 'beauty'; there are infidelity, "),
        (["-m", "focus,focus"], "metric 'focus' is given twice"),
        (["--protocol", "mine"], "no protocol 'mine'; there is semantic-pullbacks"),
        (["--labels", "{labels}"], "line 1: an image's path and its class are asked for"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    graphs: dict[str, Path], images: Path, tmp_path: Path, wrong: Sequence[str], said: str
) -> None:
    (tmp_path / "labels.csv").write_text("0.png;1\n")
    named = [word.format(labels=tmp_path / "labels.csv") for word in wrong]
    status, output = run(graphs["gradient"], "-i", images, "-o", tmp_path / "out", *named)
    assert status not in (0, 1)
    assert said in output


def test_a_file_that_is_perturbed_takes_normalised_images(
    graphs: dict[str, Path], images: Path
) -> None:
    with pytest.raises(InputError, match="an explain graph is given twice"):
        evaluate([graphs["gradient"]] * 2, images)
    with pytest.raises(InputError, match="no image found at"):
        evaluate(graphs["gradient"], images / "none")
