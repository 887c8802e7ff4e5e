"""Files that take photographs under this package's runtime, and every other that is here."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import NO_IMAGE
from onnxplain.contract.pixels import FORMATS, PHOTOGRAPH_SIDES, ROWS, WIDTH, Pixels
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.folder import explain_files
from onnxplain.runtime.inputs.objective import on_photograph
from onnxplain.runtime.inputs.pixels import frame
from onnxplain.runtime.report import write_report
from onnxplain.runtime.sessions.tensorrt.profile import BATCHES, TARGETS, Profile
from onnxplain.runtime.signature import Signature
from onnxplain.serve.decode import decode
from onnxplain.serve.refusal import Refusal
from onnxplain.serve.schemas import Tensor
from onnxplain.serve.settings import Limits

from ..cuda.small import SIZE
from ..objectives.networks import exported
from ..objectives.test_detectors import SIZE as DETECTED
from ..objectives.test_detectors import network as detector
from .files import explain_graph, noise, preprocessing

PHOTOGRAPHS = [noise(44, 60, 3), noise(71, 50, 3, seed=1), noise(44, 60, 3, seed=2)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explain_graph(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explain_graph(tmp_path_factory.mktemp("photographs"), preprocess=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"geometry": "photograph", "quantise_output": "int8"}
    return explain_graph(tmp_path_factory.mktemp("whole"), preprocess=True, **options)


def assert_alike(found: Any, expected: Any) -> None:
    largest = np.abs(expected.logits).max()
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3 * largest)
    pairs = zip(found.pullback.reshape(len(found), -1), expected.pullback, strict=True)
    for g, wanted in pairs:
        wanted = wanted.ravel()
        assert g @ wanted > 0.999 * np.linalg.norm(g) * np.linalg.norm(wanted)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_photographs_of_several_sizes_are_explained_in_their_order(
    plain: Path, photographs: Path, tmp_path: Path, provider: str
) -> None:
    Image.fromarray(PHOTOGRAPHS[1]).save(tmp_path / "one.png")
    mixed = [PHOTOGRAPHS[0], tmp_path / "one.png", Image.fromarray(PHOTOGRAPHS[2])]
    found = onnxplain.load(photographs, provider)(mixed, [0, 1, 2])
    expected = onnxplain.load(plain, "cpu")(mixed, [0, 1, 2])
    assert_alike(found, expected)
    np.testing.assert_array_equal(found.photographs, expected.photographs)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "nv12"])
def test_a_photograph_is_made_the_pixels_that_the_file_takes(
    plain: Path, tmp_path: Path, form: str
) -> None:
    path = explain_graph(tmp_path, preprocess=True, pixels=form)
    grey = np.repeat(PHOTOGRAPHS[0][..., :1], 3, axis=2)
    found = onnxplain.load(path, "cpu")(grey, 1)
    assert_alike(found, onnxplain.load(plain, "cpu")(grey, 1))


def test_nv12_holds_the_photograph_s_colours() -> None:
    smooth = cv2.GaussianBlur(PHOTOGRAPHS[1], (0, 0), 6)[:70]
    held = frame(Image.fromarray(smooth), Pixels("nv12"))
    back = cv2.cvtColor(held, cv2.COLOR_YUV2RGB_NV12)
    assert np.abs(back.astype(int) - smooth).mean() < 3
    with pytest.raises(InputError, match="two by two pixels, and the image has 1 × 9"):
        frame(Image.new("RGB", (1, 9)), Pixels("nv12"))


def test_a_pullback_on_the_photograph_is_drawn_over_it(whole: Path, tmp_path: Path) -> None:
    explanation = onnxplain.load(whole, "cpu")(PHOTOGRAPHS[:1], 1)
    assert explanation.pullback.shape == (1, 3, 44, 60)
    assert explanation.pullback.dtype == np.float32
    np.testing.assert_array_equal(explanation.photographs[0], PHOTOGRAPHS[0])
    explanation.save(tmp_path / "why.png", "overlay")
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.size[0] * 44 == picture.size[1] * 60


def test_nv12_shows_what_is_left_of_odd_sides(tmp_path: Path) -> None:
    path = explain_graph(tmp_path, preprocess=True, pixels="nv12", geometry="photograph")
    explainer, odd = onnxplain.load(path, "cpu"), Image.fromarray(noise(45, 61, 3))
    held = frame(odd, Pixels("nv12"))
    expected = cv2.cvtColor(held, cv2.COLOR_YUV2RGB_NV12)
    explanation = explainer([odd, odd.crop((0, 0, 60, 44))], 1)
    np.testing.assert_array_equal(explanation.photographs[0], expected)
    assert explanation.pullback.shape[-2:] == (44, 60)
    assert explanation.draw("overlay").size[0] > 60

    odd.save(tmp_path / "odd.png")
    odd.crop((0, 0, 60, 44)).save(tmp_path / "even.png")
    paths = [tmp_path / "odd.png", tmp_path / "even.png"]
    drawn = explain_files(explainer, paths, [1], lambda _, made: made.draw().size, batch_size=2)
    assert len({size for _, size in drawn}) == 1

    url, png = "output=png&targets=1", paths[0].read_bytes()
    body = json.dumps({"image": base64.b64encode(png).decode()}).encode()
    prepared = decode("application/json", url, body, explainer, Limits())
    np.testing.assert_array_equal(prepared.photograph, expected)


def test_what_has_each_photograph_s_size_is_not_put_into_one_array(whole: Path) -> None:
    with pytest.raises(InputError, match="explain those of one size together, and not of 2"):
        onnxplain.load(whole, "cpu")(PHOTOGRAPHS)


def test_floats_are_refused(photographs: Path) -> None:
    with pytest.raises(InputError, match="takes a photograph's pixels, uint8"):
        onnxplain.load(photographs, "cpu")(np.zeros((3, SIZE, SIZE), np.float32))


def test_a_tensor_holds_pixels_as_the_graph_takes_them(whole: Path) -> None:
    explainer = onnxplain.load(whole, "cpu")
    found = explainer(torch.from_numpy(PHOTOGRAPHS[0][None]), 1)
    expected = explainer(PHOTOGRAPHS[0], 1)
    np.testing.assert_allclose(found.pullback.numpy(), expected.pullback, atol=1e-6)
    with pytest.raises(InputError, match=r"\['N', 'any', 'any', 3\], not \[1, 3, 4, 4\]"):
        explainer(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 1)
    with pytest.raises(InputError, match="holds uint8, a photograph's pixels, not float32"):
        explainer(torch.zeros(1, 4, 4, 3), 1)


@pytest.mark.parametrize("form", ["gray", "nv12"])
def test_a_tensor_of_frames_that_have_no_channels(tmp_path: Path, form: str) -> None:
    explainer = onnxplain.load(explain_graph(tmp_path, preprocess=True, pixels=form), "cpu")
    frames = [frame(Image.fromarray(one), Pixels(form)) for one in PHOTOGRAPHS[::2]]
    found = explainer(torch.from_numpy(np.stack(frames)), 1).pullback.numpy()
    expected = explainer(PHOTOGRAPHS[::2], 1).pullback
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(explainer(torch.from_numpy(frames[0].copy()), 1).pullback, found[:1])
    if form == "nv12":
        for shape in ((1, 44, 60), (1, 66, 61)):
            with pytest.raises(InputError, match=r"an even width: not \d+ rows of"):
                explainer(torch.zeros(shape, dtype=torch.uint8), 1)


def test_a_box_lies_where_it_does_in_the_even_part_of_an_odd_photograph(tmp_path: Path) -> None:
    """Of which alone NV12 has the colours: as of a photograph without its last row and column."""
    options = {"preprocess": True, "pixels": "nv12", "fit": "squash"}
    explainer = exported(detector("yolov8"), DETECTED, **options)
    odd = noise(23, 31, 3)
    Image.fromarray(odd).save(tmp_path / "odd.png")
    Image.fromarray(odd[:-1, :-1]).save(tmp_path / "even.png")
    metadata = explainer.metadata
    placed = [
        on_photograph(metadata, {"box": box}, size)["box"]
        for box, size in (([4, 5, 31, 23], (31, 23)), ([4, 5, 30, 22], (30, 22)))
    ]
    np.testing.assert_array_equal(*placed)
    with pytest.raises(InputError, match="not left, top, right, bottom within the image"):
        on_photograph(metadata, {"box": [4, 5, 32, 23]}, (31, 23))
    command = ["explain", str(explainer.path), str(tmp_path), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--provider", "cpu"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    one, other = (json.loads(line)["targets"] for line in lines)
    assert one == other
    assert one[0]["box"]


@pytest.mark.parametrize("form", FORMATS)
def test_verify_compares_the_pixels_with_pillow_s_and_the_rest_with_the_source(
    tmp_path: Path, form: str
) -> None:
    path = explain_graph(
        tmp_path, preprocess=True, pixels=form, geometry="photograph", quantise_output="int8"
    )
    found = onnxplain.verify(path, str(tmp_path / "network.onnx"))
    assert found.passed, found
    assert {"photograph", "logits", "pullback"} <= {check.what for check in found.checks}


def test_verify_finds_wrong_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxplain.export.camera.resampling as resampling

    filters = {**resampling.FILTERS, "bilinear": resampling.FILTERS["hamming"]}
    monkeypatch.setattr(resampling, "FILTERS", filters)
    path = explain_graph(tmp_path, preprocess=True)
    found = onnxplain.verify(path, str(tmp_path / "network.onnx"))
    assert [check.what for check in found.checks if not check.passed] == ["photograph"]


def test_another_provider_is_verified_with_its_pixels(photographs: Path) -> None:
    found = onnxplain.verify(photographs, provider="openvino")
    assert found.passed


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_explain_takes_photographs_of_several_sizes(
    whole: Path, tmp_path: Path
) -> None:
    for i, photograph in enumerate(PHOTOGRAPHS):
        Image.fromarray(photograph).save(tmp_path / f"{i}.png")
    code, said = run("explain", whole, tmp_path, "-o", tmp_path / "why", "--provider", "cpu")
    assert code == 0, said
    lines = (tmp_path / "why" / "predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["image"]).name for line in lines] == ["0.png", "1.png", "2.png"]


def test_the_command_info_says_what_the_file_takes(whole: Path) -> None:
    code, said = run("info", whole)
    assert code == 0, said
    for words in ("uint8 [N, h, w, 3]: rgb", "pullback int8 [N, 3, h, w]", "in the graph"):
        assert words in said, said


def test_an_ascent_is_refused(photographs: Path) -> None:
    with pytest.raises(BackendError, match="export the network again without preprocess"):
        onnxplain.accentuate(onnxplain.load(photographs, "cpu"), PHOTOGRAPHS[0])


def test_a_report_s_steps_are_of_the_network_s_own_input(photographs: Path, tmp_path: Path) -> None:
    explainer = onnxplain.load(photographs, "cpu")
    with pytest.raises(BackendError, match="a report changes or makes the network's own input"):
        write_report(explainer, [tmp_path / "one.png"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("size", "fit", "pixels", "output", "refused"),
    [
        ((5000, 10), "letterbox", False, "png", False),
        ((5000, 10), "squash", True, "png", False),
        ((5000, 10), "crop", True, "json", False),
        ((5000, 10), "crop", True, "png", True),
        ((5000, 10), "crop", False, "json", True),
    ],
)
def test_the_service_refuses_what_it_would_itself_make_too_large(
    tmp_path: Path, size: tuple[int, int], fit: str, pixels: bool, output: str, refused: bool
) -> None:
    explainer = onnxplain.load(explain_graph(tmp_path, preprocess=pixels, fit=fit), "cpu")
    body = json.dumps({"tensor": Tensor.of(noise(*size[::-1], 3)), "output": output}).encode()
    limits = Limits(pixels=60_000)

    def decoded() -> object:
        return decode("application/json", "", body, explainer, limits)

    if not refused:
        decoded()
        return
    with pytest.raises(Refusal, match="when it is resized for the network"):
        decoded()


def test_an_engine_takes_one_photograph_in_a_run_unless_it_is_told() -> None:
    asked = TARGETS, {}, NO_IMAGE, Pixels("rgb")
    assert Profile.of(None, *asked).batches == (1, 1, 1)
    assert Profile.of((1, 2, 4), *asked).batches == (1, 2, 4)
    assert Profile.of(None, TARGETS, {}).batches == BATCHES


def test_an_engine_takes_even_sides_of_nv12() -> None:
    """Whose rows are 3/2 of its height, and which has one chroma for two by two pixels."""
    pre = preprocessing(height=45, width=71, multiple=1)
    sides = Profile.of(None, TARGETS, {}, pre, Pixels("nv12")).sides
    assert sides[WIDTH] == sides[PHOTOGRAPH_SIDES[1]] == (36, 72, 142)
    assert sides[PHOTOGRAPH_SIDES[0]] == (22, 46, 90)
    assert sides[ROWS] == (33, 69, 135)
    assert Profile.of(None, TARGETS, {}, pre, Pixels("rgb")).sides[WIDTH] == (35, 71, 142)


@pytest.mark.parametrize(
    "options",
    [
        {
            "pixels": "nv12",
            "geometry": "photograph",
            "quantise_output": "int8",
            "picture": "overlay",
        },
        {"interpolation": "lanczos", "fit": "letterbox", "quantise_output": "float16"},
        {
            "pixels": "gray",
            "interpolation": "nearest",
            "fit": "squash",
            "method": "gradcam",
            "picture": "overlay",
        },
        {"pixels": "bgr-planar", "picture": "overlay"},
    ],
    ids=["nv12", "letterbox", "gray", "bgr-planar"],
)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_tensorrt_rtx_compiles_it(tmp_path: Path, options: dict[str, Any], precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt.build import build_engine

    path = explain_graph(tmp_path, preprocess=True, **options)
    engine = build_engine(path, sm=[89], precision=precision, keep=False)
    assert Signature.of(engine.metadata, engine.inputs, engine.outputs).metadata.pixels
    least, _, most = engine.profile["image"]
    assert (least[0], most[0]) == (1, 1)
    assert max(most) >= 4000
