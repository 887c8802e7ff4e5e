"""The command line, as a user types it: output, files and exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from onnx import TensorProto
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import BackendError
from onnxplain.export.sources import source
from onnxplain.export.sources.source import TorchNetwork
from onnxplain.reference import forward, logits
from onnxplain.reference.sources import scores_of_onnx

from .export.graphs import head, write


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def gradient(lite0_forward: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "gradient.onnx"
    options = ["--method", "gradient", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    code, text = run("export", lite0_forward, "-o", path, *options)
    assert code == 0, text
    assert "2.00 × the forward's multiply-adds" in text
    return path


def test_a_methods_parameters_are_set_by_name_noted_and_shown(
    lite0_forward: Path, tmp_path: Path
) -> None:
    path = tmp_path / "semantic.onnx"
    given = ["--method", "semantic", "--param", "relu=0.5", "--param", "max_pool=0.5"]
    code, text = run("export", lite0_forward, "-o", path, *given)
    assert code == 0, text
    assert "semantic, temperature 1, relu 0.5, max_pool 0.5" in text
    assert "semantic, temperature 1, relu 0.5, max_pool 0.5" in run("info", path)[1]


@pytest.mark.parametrize(
    "command",
    [[], ["export"], ["differentiate"], ["explain"], ["verify"], ["info"], ["demo"]],
)
def test_help_teaches_by_example(command: list[str]) -> None:
    code, text = run(*command, "--help")
    assert code == 0
    assert "Usage" in text
    assert command == ["demo"] or "onnxplain " + (command or ["demo"])[0] in text


def test_version() -> None:
    assert run("--version") == (0, f"onnxplain {onnxplain.__version__}")


@pytest.mark.parametrize("arguments", [["nonsense"], ["export", "x", "--colour", "red"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_info_says_what_the_file_holds(lite0: Path) -> None:
    code, text = run("info", lite0)
    assert code == 0
    for part in ("excitation, temperature 1", "[N, 3, 224, 224]", "tench", "2.00 ×", "int64 [N]"):
        assert part in text


@pytest.mark.parametrize(
    ("weights", "noted", "shown"),
    [
        ("default", "DEFAULT", "pretrained"),
        ("None", "none", "none: random, from a fixed seed"),
        ("runs/fine.pth", "fine.pth", "the checkpoint fine.pth"),
    ],
)
def test_info_says_how_the_weights_of_a_network_by_name_were_chosen(
    weights: str, noted: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    network = TorchNetwork("small", torch.nn.Sequential(*layers), Preprocessing(8, 8, 8), ())
    monkeypatch.setattr(source, "torch_network", lambda *of: network)
    metadata = onnxplain.export("small", tmp_path / "e.onnx", weights=weights)
    assert metadata.weights == noted
    assert shown in run("info", tmp_path / "e.onnx")[1]


def test_info_of_another_file_says_how_to_make_one(lite0_forward: Path) -> None:
    code, text = run("info", lite0_forward)
    assert code == 5
    assert "not an explain graph" in text


def test_explain_writes_a_picture_and_a_line_for_each_image(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text = run("explain", lite0, photo_folder, "-o", out)
    assert code == 0
    assert "3 of 3 images" in text
    records = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    names = {Path(r["image"]).stem: r["predictions"][0]["name"] for r in records}
    assert names["coffee"] == "espresso"
    assert names["rocket"] == "missile"
    for record in records:
        assert record["targets"][0]["name"] == record["predictions"][0]["name"]
        picture = np.asarray(Image.open(record["picture"]))
        assert picture.std() > 10


def test_explain_takes_targets_by_name_and_by_rank(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    image = photo_folder / "coffee.jpg"
    code, _ = run("explain", lite0, image, "-o", tmp_path, "-t", "-2", "-t", "espresso", "-t", 504)
    assert code == 0
    (record,) = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    second, espresso, mug = record["targets"]
    assert second["name"] == record["predictions"][1]["name"]
    assert espresso == {**espresso, "index": 967, "name": "espresso"}
    assert mug["index"] == 504


def test_unreadable_images_are_reported_and_the_rest_goes_on(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    whole = (photo_folder / "rocket.jpg").read_bytes()
    (photo_folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photo_folder / "text.png").write_text("no image")
    code, text = run("explain", lite0, photo_folder, "-o", tmp_path / "out")
    assert code == 1
    assert "3 of 5 images" in text
    assert "cut.jpg" in text
    assert "text.png" in text
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    errors = {Path(r["image"]).name for r in map(json.loads, lines) if "error" in r}
    assert errors == {"cut.jpg", "text.png"}


def test_two_images_of_one_name_get_two_pictures(
    lite0: Path, photo_folder: Path, tmp_path: Path
) -> None:
    (photo_folder / "more").mkdir()
    (photo_folder / "rocket.jpg").rename(photo_folder / "more" / "coffee.jpg")
    code, _ = run("explain", lite0, photo_folder, "-o", tmp_path / "out")
    assert code == 0
    pictures = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert pictures == ["chelsea.png", "coffee-2.png", "coffee.png"]


def test_a_picture_never_takes_the_place_of_an_image(lite0: Path, photo_folder: Path) -> None:
    for name in ("rocket-2.jpg", "coffee.jpg"):
        (photo_folder / name).unlink(missing_ok=True)
    image = photo_folder / "rocket.png"
    Image.open(photo_folder / "rocket.jpg").save(image)
    before = image.read_bytes()
    code, _ = run("explain", lite0, photo_folder, "-o", photo_folder)
    assert code == 0
    assert image.read_bytes() == before
    lines = (photo_folder / "predictions.jsonl").read_text().splitlines()
    pictures = [json.loads(line)["picture"] for line in lines]
    assert len(set(pictures)) == 3
    assert all(Path(picture).is_file() for picture in pictures)


def test_an_interruption_is_status_130(
    lite0_forward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxplain.export.pipeline.add_pullback", interrupted)
    code, text = run("export", lite0_forward, "-o", tmp_path / "out.onnx")
    assert (code, text.split()[-1]) == (130, "interrupted")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    lite0_forward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("onnxplain.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    code, text = run("export", lite0_forward)
    assert code == 5
    assert 'needs onnx_ir: pip install "onnxplain[export]"' in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["explain", "{lite0}", "nowhere.jpg"], 4, "nowhere.jpg"),
        (["explain", "{lite0}", "{photos}", "-t", "1000"], 4, "1000"),
        (["explain", "{lite0}", "{photos}", "-t", "no such class"], 4, "no such class"),
        (["explain", "{lite0}", "{photos}", "--temperature", "1"], 4, "--live-temperature"),
        (["explain", "{lite0}", "{photos}", "--style", "cubist"], 4, "cubist"),
        (["explain", "{lite0}", "{photos}", "-o", "{lite0}/out"], 4, "cannot write"),
        (["explain", "nowhere.onnx", "{photos}"], 5, "nowhere.onnx"),
        (["explain", "{lite0}", "{photos}", "--provider", "abacus"], 5, "cpu"),
        (["export", "nowhere.onnx"], 3, "no such file"),
        (["export", "resnet50", "--size", "big"], 4, "224x320"),
        (["export", "resnet50", "--mean", "grey"], 4, "--mean"),
        (["export", "resnet50", "--param", "relu"], 4, "--param takes NAME=NUMBER or NAME=WORD"),
        (["export", "resnet50", "--param", "a=1", "--param", "a=2"], 4, "--param gives a twice"),
        (["export", "resnet50", "--temperature", "0.3,0.9"], 4, "a number or auto, not '0.3,0.9'"),
        (["export", "resnet50", "--temperature", "abc"], 4, "a number or auto, not 'abc'"),
        (["export", "resnet50", "--param", "mood=1"], 3, "it has temperature, relu, max_pool"),
        (["export", "resnet50", "--param", "relu=-1"], 3, "relu must be a positive number"),
        (["export", "resnet50", "-o", "/nowhere/out.onnx"], 4, "does not exist"),
        (["verify", "{lite0}"], 4, "--source"),
    ],
)
def test_an_error_is_a_sentence_and_a_status(
    arguments: list[str],
    status: int,
    message: str,
    lite0: Path,
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(*(a.format(lite0=lite0, photos=photo_folder) for a in arguments))
    assert code == status
    assert message in text
    assert "Traceback" not in text


def test_verify_against_the_reference(lite0: Path) -> None:
    code, text = run("verify", lite0, "--source", "efficientnet-lite0")
    assert code == 0
    assert "pullback" in text
    assert "WRONG" not in text


def test_verify_tells_a_graph_of_other_weights(tmp_path: Path) -> None:
    graph, others = tmp_path / "resnet18.onnx", tmp_path / "others.pth"
    onnxplain.export("resnet18", graph, weights="none", size=64)
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18().state_dict(), others)
    code, text = run("verify", graph, "--source", "resnet18", "--weights", "none")
    assert code == 0, text
    code, text = run("verify", graph, "--source", "resnet18", "--weights", others)
    assert code == 1
    assert "WRONG" in text


@pytest.mark.sweep
def test_verify_by_finite_differences_of_its_own_logits(gradient: Path, photo_folder: Path) -> None:
    code, text = run("verify", gradient, "--image", photo_folder / "chelsea.jpg")
    assert code == 0, text
    assert "along the pullback" in text


def test_verify_by_finite_differences_tells_a_wrong_gradient(tmp_path: Path) -> None:
    import onnx

    smooth = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(784, 5)
    )
    right = tmp_path / "right.onnx"
    onnxplain.export(smooth, right, example=torch.zeros(1, 3, 16, 16), method="gradient")
    assert run("verify", right)[0] == 0
    model = onnx.load(right)
    last = next(n for n in model.graph.node if "pullback" in n.output)
    last.output[0] = "right"
    model.graph.node.append(onnx.helper.make_node("Mul", ["right", "scale"], ["pullback"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.1), "scale"))
    onnx.save(model, tmp_path / "wrong.onnx")
    code, text = run("verify", tmp_path / "wrong.onnx")
    assert code == 1
    assert "WRONG" in text


@pytest.mark.parametrize(
    "command",
    [[Path(sys.executable).with_name("onnxplain")], [sys.executable, "-m", "onnxplain"]],
    ids=["program", "module"],
)
def test_the_installed_command_is_this_one(command: list[Path | str]) -> None:
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"onnxplain {onnxplain.__version__}"


@pytest.mark.usefixtures("compared")
def test_an_export_is_held_to_what_its_source_itself_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, weights = head("x", 3 * 16)
    source, path = write(tmp_path / "net.onnx", tail, weights, ("N", 3, 4, 4)), tmp_path / "e.onnx"
    assert run("export", source, "-o", path)[0] == 0
    monkeypatch.setattr(logits, "scores_of_onnx", lambda *_: [np.ones([2, 4])])
    code, text = run("export", source, "-o", path)
    assert code == 3
    assert "e.onnx' is not right: on noise, its logits differ from those of" in text
    assert "--no-check leaves this out" in text
    assert run("export", source, "-o", path, "--no-check")[0] == 0


@pytest.mark.usefixtures("compared")
def test_a_small_difference_of_float32_and_what_cannot_be_checked_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_others(factor: float) -> Callable[..., list[np.ndarray]]:
        return lambda *asked: [factor * scores for scores in scores_of_onnx(*asked)]

    tail, weights = head("x", 3 * 16)
    source, path = write(tmp_path / "net.onnx", tail, weights, (3, 3, 4, 4)), tmp_path / "e.onnx"
    assert "not checked" not in run("export", source, "-o", path)[1]  # batches of 3
    monkeypatch.setattr(logits, "scores_of_onnx", of_others(1.001))
    assert "by 1.0e-03 of their size" in run("export", source, "-o", path)[1]
    monkeypatch.setattr(logits, "scores_of_onnx", of_others(float("nan")))
    assert run("export", source, "-o", path)[0] == 3
    half = {name: weight.astype(np.float16) for name, weight in weights.items()}
    rounded = write(tmp_path / "half.onnx", tail, half, ("N", 3, 4, 4), dtype=TensorProto.FLOAT16)
    monkeypatch.setattr(logits, "scores_of_onnx", of_others(1.001))
    code, text = run("export", rounded, "-o", path)
    assert code == 0
    assert "not checked" not in text
    monkeypatch.setattr(logits, "scores_of_onnx", lambda *_: [])
    code, text = run("export", source, "-o", path)
    assert code == 0
    assert "not checked: ONNX Runtime does not run the source on images alone" in text


@pytest.mark.usefixtures("compared")
def test_an_export_that_does_not_run_where_its_source_does_is_not_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise BackendError("no kernel")

    tail, weights = head("x", 3 * 16)
    source = write(tmp_path / "net.onnx", tail, weights, ("N", 3, 4, 4))
    monkeypatch.setattr(forward, "inference_session", fails)
    code, text = run("export", source, "-o", tmp_path / "e.onnx")
    assert code == 3
    assert "it does not run where its source does: no kernel" in " ".join(text.split())
