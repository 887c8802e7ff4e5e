"""Objectives on the command line, in verification, and where classes alone are explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.contract.objective import BOX, INDEX, MASK
from onnxplain.errors import InputError, SourceError
from onnxplain.export import OBJECTIVES, Fit, Input, Objective, register_objective
from onnxplain.reference.outputs import MIXED

from .networks import SIZE, close, exported, gradient, images, vector
from .test_maps import REGION, network

X = images()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    example = torch.zeros(1, 3, SIZE, SIZE)
    onnxplain.export(network(), folder / "map.onnx", example=example, method="gradient")
    onnxplain.export(
        vector(5), folder / "vector.onnx", example=example, method="gradient", objective="embedding"
    )
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")
    mask = np.zeros((20, 24), np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    np.save(folder / "query.npy", np.arange(5.0))
    return folder


def ran(*command: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(part) for part in command])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_explain_takes_a_region(folder: Path, tmp_path: Path) -> None:
    command = [
        "explain",
        folder / "map.onnx",
        folder / "x.png",
        "-o",
        tmp_path,
        "--provider",
        "cpu",
    ]
    status, _ = ran(*command, "-t", 1, "-t", -1, "--region", folder / "mask.png")
    assert status == 0
    (line,) = (tmp_path / "predictions.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["objective"] == "segment"
    half = np.zeros((8, 8))
    half[:, :4] = 1
    explanation = onnxplain.load(folder / "map.onnx", "cpu")(folder / "x.png", 1, region=half)
    assert found["targets"][0]["value"] == pytest.approx(float(explanation.objective[0]), rel=1e-4)
    assert Path(found["picture"]).exists()


def test_explain_takes_a_query(folder: Path, tmp_path: Path) -> None:
    command = ["explain", folder / "vector.onnx", folder / "x.png", "-o", tmp_path]
    command += ["--provider", "cpu"]
    assert ran(*command, "--query", folder / "query.npy")[0] == 0
    for more, message in {
        (): "needs 'query'",
        ("--query", "cat"): "'query' is given as numbers with commas between",
        ("--query", folder / "none.npy"): "cannot read 'query'",
        ("--box", "1,2,3,4"): "has no input 'box'; it takes 'query'",
        ("--query", "1,2"): "has the shape [5]",
        ("--given", "query"): "--given takes NAME=VALUE",
        ("--query", folder / "query.npy", "-t", "1"): "has no target",
    }.items():
        status, output = ran(*command, *more)
        assert status == 4
        assert message in output


def test_info_says_what_was_recognised_and_why(folder: Path) -> None:
    status, output = ran("info", folder / "map.onnx")
    assert status == 0
    for words in ("segment", "output is a map of 4 classes", "region [N, 8, 8]", "objective [N]"):
        assert words in output


def test_export_takes_an_objective_and_its_settings(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    torch.onnx.export(
        vector(5), (torch.zeros(2, 3, 16, 16),), source, dynamo=True, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    command = ["export", source, "-o", tmp_path / "e.onnx", "--objective", "embedding"]
    status, output = ran(*command, "--setting", "similarity=dot")
    assert status == 0, output
    assert "explained: embedding" in output
    found = onnxplain.load(tmp_path / "e.onnx", "cpu").metadata.objective
    assert found.settings == {"similarity": "dot"}
    status, output = ran(*command[:-1], "embeddding")
    assert status == 3
    assert "did you mean embedding" in output


def test_an_explain_graph_is_no_source(folder: Path, tmp_path: Path) -> None:
    """`tune` takes one, whatever it is called."""
    status, output = ran("export", folder / "map.onnx", "--out", tmp_path / "e.onnx")
    assert status == 3
    assert "map.onnx' is an explain graph already: give the network" in output
    Image.new("RGB", (32, 32)).save(tmp_path / "p.png")
    status, output = ran("tune", folder / "map.onnx", tmp_path / "p.png")
    assert status == 4
    assert "tuning needs a graph exported with --live-temperature" in output


def test_a_file_is_verified_against_its_source(folder: Path) -> None:
    found = onnxplain.verify(folder / "map.onnx", network(), provider="cpu")
    assert found.passed
    assert [check.what for check in found.checks] == [
        *("output", "objective", "pullback", "output, by the source itself"),
        *("along the pullback", "along noise"),
    ]
    assert not onnxplain.verify(folder / "map.onnx", network().apply(halved), provider="cpu").passed
    with pytest.raises(InputError, match="finite differences"):
        onnxplain.verify(folder / "map.onnx", provider="cpu")


def test_what_takes_images_of_any_size_is_verified_on_those_of_another() -> None:
    explainer = exported(
        vector(5), size="any", objective="embedding", settings={"similarity": "dot"}
    )
    other = torch.randn(2, 3, 19, 30, generator=torch.Generator().manual_seed(3)).numpy()
    found = onnxplain.verify(explainer.path, vector(5), images=[other], provider="cpu")
    assert found.passed, found
    assert found.images == 2


def halved(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.Conv2d):
        module.weight.data /= 2


def test_what_has_no_classes_has_no_probabilities(folder: Path) -> None:
    with pytest.raises(InputError, match="no classifier"):
        _ = onnxplain.load(folder / "map.onnx", "cpu")(X.numpy()).probabilities


def test_a_function_is_an_objective() -> None:
    def contrast(op: object, outputs: dict[str, object]) -> object:
        y = outputs["output"]
        return op.ReduceSum(op.Mul(y, y), [1, 2, 3], keepdims=0)  # type: ignore[attr-defined]

    explainer = exported(network(), objective=contrast)
    explanation = explainer(X.numpy())
    score, expected = gradient(network(), X, lambda y: (y * y).sum((1, 2, 3)))
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    assert explainer.metadata.objective.name == "contrast"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda op, outputs: outputs["output"], r"gives FLOAT\[.*where one FLOAT per sample"),
        (lambda op, outputs: 3, "gives 3, where one"),
        (
            lambda op, outputs: op.ReduceMax(outputs["y"]),
            r"objective 'lambda' fails: KeyError: 'y'; it is given the outputs "
            r"output \[N, 4, 8, 8\]$",
        ),
        (lambda op: op, r"objective 'lambda' fails: TypeError: .* takes 1 positional argument"),
        (lambda op, outputs: op.Maximum(outputs["output"]), "ONNX has no operator Maximum"),
    ],
)
def test_a_function_that_gives_no_scalar(function: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        exported(network(), objective=function)


@pytest.mark.usefixtures("compared")
def test_a_function_that_mixes_images_is_refused(tmp_path: Path) -> None:
    def total(op: Any, outputs: dict[str, Any]) -> Any:
        y = outputs["output"]
        return op.Expand(op.ReduceMean(y, keepdims=0), op.Shape(y, start=0, end=1))

    given: dict[str, Any] = {"example": X[:1], "method": "gradient"}
    with pytest.raises(SourceError, match="'total' of an image depends on the others of its batch"):
        onnxplain.export(network(), tmp_path / "e.onnx", objective=total, **given)
    whole = nn.Sequential(network(), nn.BatchNorm2d(4, track_running_stats=False))
    metadata = onnxplain.export(whole, tmp_path / "e.onnx", objective="segment", **given)
    assert MIXED in metadata.notes


def test_a_function_of_a_known_objectives_name_is_another() -> None:
    def detection(op: Any, outputs: dict[str, Any]) -> Any:
        return op.ReduceMean(outputs["output"], [1, 2, 3], keepdims=0)

    explainer = exported(network(), objective=detection)
    assert explainer.metadata.objective.name == "own detection"
    assert onnxplain.verify(explainer.path, network(), objective=detection).passed


def test_an_objective_is_registered_like_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "total", None)  # so that they are as before in the end

    def fits(network: object, settings: object) -> Fit | str:
        (output,) = network.outputs  # type: ignore[attr-defined]
        if len(output.sizes) != 3:
            return "no output is a map"
        return Fit({"map": output}, {output.name: ("batch", "class", "height", "width")}, "a map")

    def emit(op: object, fit: Fit, inputs: dict[str, object]) -> object:
        y = fit.outputs["map"].with_batch_first(op)  # type: ignore[arg-type]
        total = op.ReduceSum(y, [1, 2, 3], keepdims=0)  # type: ignore[attr-defined]
        return op.Mul(total, inputs["factor"])  # type: ignore[attr-defined]

    given = (Input("factor", "what it is multiplied by", default=2),)
    register_objective(Objective("total", "the sum of a map", fits, emit, given))  # type: ignore[arg-type]
    explainer = exported(network(), objective="total")
    expected = gradient(network(), X, lambda y: y.sum((1, 2, 3)))[1]
    close(explainer(X.numpy()).pullback, 2 * expected)
    close(explainer(X.numpy(), factor=[1, -3]).pullback[1], -3 * expected[1])
    with pytest.raises(SourceError, match="'total' does not fit: no output is a map"):
        exported(vector(5), objective="total")


def test_what_an_objective_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind, without a default: none is not given by zeros, and verification gives some."""
    monkeypatch.setitem(OBJECTIVES, "given", None)
    shapes = {"box": [4], "where": [8, 8]}

    def fits(network: Any, settings: object) -> Fit | str:
        (output,) = network.outputs
        return Fit({"map": output}, {}, "a map", shapes=shapes, limits={"which": 4})

    def emit(op: Any, fit: Fit, inputs: dict[str, Any]) -> object:
        y = fit.outputs["map"].with_batch_first(op)
        area = op.ReduceSum(inputs["box"], [1], keepdims=0)
        which = op.CastLike(op.Add(inputs["which"], 1), y)
        where = op.Unsqueeze(inputs["where"], [1])
        return op.Mul(op.ReduceSum(op.Mul(y, where), [1, 2, 3], keepdims=0), op.Mul(area, which))

    kinds = {"box": BOX, "where": MASK, "which": INDEX}
    inputs = tuple(Input(name, f"its {name}", kind) for name, kind in kinds.items())
    register_objective(Objective("given", "of all kinds", fits, emit, inputs))
    explainer = exported(network(), objective="given")
    whole: dict[str, Any] = {"box": [1, 2, 5, 6], "where": REGION, "which": 1}
    expected = gradient(network(), X, lambda y: 28 * (y * torch.from_numpy(REGION)).sum((1, 2, 3)))
    close(explainer(X.numpy(), **whole).pullback, expected[1])
    for name, nothing in (("box", [0, 0, 0, 0]), ("where", 0 * REGION)):
        with pytest.raises(InputError, match=f"'{name}' is 0 everywhere: its {name}$"):
            explainer(X.numpy(), **{**whole, name: nothing})
    assert onnxplain.verify(explainer.path, network(), objective="given").passed
    shapes["box"] = [2]
    with pytest.raises(SourceError, match=r"gives its input 'box' the shape \[2\], and a box is"):
        onnxplain.export(network(), "never.onnx", example=X[:1], objective="given")


def test_a_tensor_is_explained_where_it_lies(folder: Path) -> None:
    explainer = onnxplain.load(folder / "map.onnx", "cpu")
    expected = explainer(X.numpy(), 1, region=REGION)
    of_all = torch.from_numpy(REGION)  # for each image, and of another dtype
    close(explainer(X, 1, region=of_all).pullback.numpy(), expected.pullback)
    for wrong, message in ((of_all[:3], r"has the shape \[8, 8\]"), (-of_all, "negative values")):
        with pytest.raises(InputError, match=f"'region' .*{message}"):
            explainer(X, 1, region=wrong)
    found = explainer(X, 1, region=of_all.float().expand(2, 8, 8).contiguous())
    assert isinstance(found.pullback, torch.Tensor)
    assert found.logits is None
    close(found.pullback.numpy(), expected.pullback)
    close(found.objective.numpy(), expected.objective)
