"""An evaluation from the command line and from Python: interrupted, broken, wrongly asked."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import InputError
from onnxplain.evaluation import evaluate
from onnxplain.evaluation.images import mask_of
from onnxplain.evaluation.store import JSON, PAGE, TABLE, UNFINISHED
from onnxplain.evaluation.subject import Logits, opened
from onnxplain.runtime.inputs.batches import as_batch

from .small import MEAN, SIDE, STD

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
    labels.write_text("image,label\n0.png,1\nimages/3.png,2\nbroken.png,1\n")
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


def test_deletion_insertion_and_masks_by_hand(
    graphs: dict[str, Path], network: nn.Module, images: Path, tmp_path: Path
) -> None:
    """The pixels are sorted, and the curves and shares computed, in a few lines of NumPy."""
    explainer = onnxplain.load(graphs["gradient"], "cpu")
    light = np.zeros((SIDE, SIDE), np.uint8)
    light[:, SIDE // 2 :] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(light).save(tmp_path / "masks" / "1.png")
    names = ["deletion", "insertion", "pointing-game", "relevance-mass"]
    given = {"metrics": names, "masks": tmp_path / "masks", "provider": "cpu"}
    found = evaluate(graphs["gradient"], images, **given)  # type: ignore[arg-type]
    assert {p.metric for p in found.problems} == {"pointing-game", "relevance-mass"}
    assert {p.image for p in found.problems} == {"0.png", "2.png", "3.png"}
    pre = explainer.metadata.preprocessing
    x = as_batch(images / "1.png", pre)[0]
    pullback = explainer(images / "1.png").pullback / np.array(STD).reshape(-1, 1, 1)
    target = explainer(images / "1.png").targets[0]
    grey = ((0.5 - np.array(MEAN)) / np.array(STD)).reshape(-1, 1, 1) + 0 * x
    order = np.argsort(-pullback.ravel())
    step = (SIDE // 4) ** 2
    for name, start, end in (("deletion", x, grey), ("insertion", grey, x)):
        curve = []
        for count in range(step, x.size + 1, step):
            mixed = start.copy().ravel()
            mixed[order[:count]] = end.ravel()[order[:count]]
            logits = network(torch.from_numpy(mixed.reshape(x.shape)).float())
            curve.append(logits.softmax(1)[0, target].item())
        right = np.mean([(a + b) / 2 for a, b in itertools.pairwise(curve)])
        np.testing.assert_allclose(found.of(name)[0, 1], right, atol=1e-4)
    size = np.abs(pullback[0]).sum(0)
    seen = mask_of(tmp_path / "masks" / "1.png", images / "1.png", pre)[0, 0]
    assert seen[:, 10:].all()
    assert not seen[:, :6].any()
    np.testing.assert_allclose(
        found.of("relevance-mass")[0, 1], size[seen].sum() / size.sum(), 1e-4
    )
    assert found.of("pointing-game")[0, 1] == seen.ravel()[size.argmax()]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["-m", "beauty"], "no metric 'beauty'; choose one of infidelity, "),
        (["-m", "infidelty"], "no metric 'infidelty'; did you mean infidelity? There are "),
        (["-m", "focus, beauty"], "no metric 'beauty'"),
        (["-m", "beauty", "-m", "focus"], "no metric 'beauty'"),
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


def test_explanations_of_one_network_share_its_forward_pass(
    graphs: dict[str, Path], network: nn.Module, tmp_path: Path
) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    path, example = tmp_path / "other.onnx", torch.zeros(2, 3, SIDE, SIDE)
    onnxplain.export(other, path, example=example, method="gradient", mean=MEAN, std=STD)
    forwards: dict[str, Logits] = {}
    files = [graphs["gradient"], graphs["input-x-gradient"], path]
    subjects = [opened(f, f.name, tmp_path, "cpu", "float32", 1, forwards) for f in files]
    gradient, times_image, others = [subject.logits for subject in subjects]
    assert gradient is times_image
    assert others is not gradient
    assert len(forwards) == 2


def test_graphs_of_other_classes_are_not_compared(
    graphs: dict[str, Path], network: nn.Module, images: Path, tmp_path: Path
) -> None:
    given = {"example": torch.zeros(1, 3, SIDE, SIDE), "method": "gradient", "mean": MEAN}
    other = nn.Sequential(network, nn.Linear(4, 5)).eval()
    onnxplain.export(other, tmp_path / "five.onnx", **given)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="gradient has 4 classes, and five 5"):
        evaluate([graphs["gradient"], tmp_path / "five.onnx"], images, provider="cpu")
    for name in ("abcd", "abdc"):
        onnxplain.export(network, tmp_path / f"{name}.onnx", labels=list(name), **given)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="classes of abcd and abdc are not called alike"):
        evaluate([tmp_path / "abcd.onnx", tmp_path / "abdc.onnx"], images, provider="cpu")


def test_other_weights_beside_a_file_are_computed_again(
    graphs: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    """The file itself stays as it is, byte by byte."""
    path, weights = tmp_path / "x.onnx", tmp_path / "x.bin"
    model = onnx.load(graphs["gradient"])
    onnx.save_model(
        model, path, save_as_external_data=True, location=weights.name, size_threshold=500
    )
    given = {"metrics": ["random-logit"], "provider": "cpu", "out": tmp_path / "out"}
    first = evaluate(path, images, **given)  # type: ignore[arg-type]
    assert evaluate(path, images, **given).earlier == 4  # type: ignore[arg-type]
    values = np.frombuffer(weights.read_bytes(), np.float32)
    weights.write_bytes(np.ascontiguousarray(values[::-1]).tobytes())
    again = evaluate(path, images, **given)  # type: ignore[arg-type]
    assert again.earlier == 0
    assert (again.of("random-logit") != first.of("random-logit")).any()


def test_a_sure_network_has_no_monotonicity(images: Path, tmp_path: Path) -> None:
    """Its probability is 1 whatever becomes grey, and a rank correlation is not of constants."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4)).eval()
    with torch.no_grad():
        network[1].bias += torch.tensor([0.0, 1e4, 0.0, 0.0])
    example = torch.zeros(1, 3, SIDE, SIDE)
    onnxplain.export(network, tmp_path / "x.onnx", example=example, method="gradient", mean=MEAN)
    names = ["monotonicity-correlation", "max-sensitivity"]
    found = evaluate(tmp_path / "x.onnx", images, metrics=names, provider="cpu")
    assert {problem.error for problem in found.problems} == {
        "the score is nan: all that it compares is the same, or no number"
    }
    assert np.isnan(found.of("monotonicity-correlation")).all()
    assert np.isfinite(found.of("max-sensitivity")).all()
