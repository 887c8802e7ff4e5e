"""Photographs that the network sees at their own size, explained and drawn at it, by one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import Metadata
from onnxplain.contract.picture import PictureOptions
from onnxplain.errors import InputError, SourceError
from onnxplain.runtime import Explanation
from onnxplain.runtime.fake_cuda.ask import Claims, claims
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.pictures.canvas import Axis, Canvas
from onnxplain.runtime.pictures.render import painted, scaled
from onnxplain.runtime.verification import least_agreement, samples

from ..cuda.conftest import environment as environment
from ..objectives.networks import exported, images
from ..objectives.test_detectors import SIZE as DETECTED
from ..objectives.test_detectors import network as detector
from ..objectives.test_maps import REGION
from ..objectives.test_maps import network as segmenter
from .files import STD, noise

SIZES = [(40, 56), (33, 71), (150, 92)]
MULTIPLE = 4

Explained = Callable[..., Path]


def network(height: int, width: int, multiple: int = 1) -> onnx.ModelProto:
    """Convolutions with a ReLU behind each, and a head; whose map joins what it was shrunk from
    by a multiple, if that is not 1."""
    random = np.random.default_rng(0)
    shapes = {"w1": (6, 3, 3, 3), "w2": (6, 6, multiple, multiple), "w3": (6, 6, 3, 3)}
    shapes |= {"up": (6, 6, multiple, multiple), "head": (6, 5)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    strides = [multiple] * 2
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], strides=strides),
        helper.make_node("ConvTranspose", ["c", "up"], ["d"], strides=strides),
        helper.make_node("Add", ["b", "d"], ["e"]),
        helper.make_node("Conv", ["e", "w3"], ["f"], strides=[2, 2]),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("GlobalAveragePool", ["g"], ["h"]),
        helper.make_node("Flatten", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "head"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, height, width])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "joined", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """Explain graphs, each exported once: for any size, or for the one that is given."""
    folder, known = tmp_path_factory.mktemp("any"), dict[str, Path]()

    def export(size: tuple[int, int] | None = None, multiple: int = 1, **options: Any) -> Path:
        key = repr((size, multiple, options))
        if key not in known:
            source = folder / f"{len(known)}.onnx"
            onnx.save(network(*(size or (40, 56)), multiple), source)
            known[key] = source.with_suffix(".explain.onnx")
            # Of a photograph of the network's size, squashing changes nothing.
            fit = {"size": "any"} if size is None else {"fit": "squash"}
            onnxplain.export(source, known[key], check=False, **fit, **options)
        return known[key]

    return export


def assert_alike(found: Explanation, expected: Explanation, step: float = 1e-4) -> None:
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    largest = np.abs(expected.pullback).max()
    np.testing.assert_allclose(found.pullback, expected.pullback, atol=step * largest)
    if expected.picture is not None:
        assert found.picture is not None
        apart = np.abs(found.picture.astype(int) - expected.picture)
        assert apart.max() <= 1
        assert np.ptp(expected.picture) > 50


CASES: dict[str, dict[str, Any]] = {
    "seen": {"preprocess": True, "method": "excitation"},
    "overlay": {"preprocess": True, "picture": "overlay", "topk": 2},
    "signed": {"preprocess": True, "pixels": "bgr", "picture": "signed", "multi_target": True},
    "whole": {"preprocess": True, "geometry": "photograph", "picture": "pullback"},
    "nv12": {"preprocess": True, "pixels": "nv12", "geometry": "photograph"},
    "gray": {"preprocess": True, "pixels": "gray", "quantise_output": "int8"},
    "floats": {"picture": "heatmap,percentile=20,smoothing=0"},
    "map": {"preprocess": True, "method": "gradcam", "layer": "g", "geometry": "photograph"},
    "relevance": {"preprocess": True, "method": "lrp-zplus", "geometry": "photograph"},
}


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_a_file_of_that_size_gives(
    explained: Explained, case: str, provider: str
) -> None:
    options = CASES[case]
    free = onnxplain.load(explained(**options), provider)
    for height, width in SIZES:
        if options.get("pixels") == "nv12":
            height, width = 2 * (height // 2), 2 * (width // 2)
        fixed = onnxplain.load(explained((height, width), **options), "cpu")
        photographs, target = noise(2, height, width, 3), [1, -1]
        given = [[1, -1], [0, 2]] if options.get("multi_target") else target
        found = free(photographs, given)
        step = 1.01 / 127 if options.get("quantise_output") else 1e-4
        assert_alike(found, fixed(photographs, given), step)
        assert found.pullback.shape[-2:] == (height, width)


@pytest.mark.parametrize("interpolation", ["bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(41, 58), (7, 150), (1, 9)])
def test_sides_that_the_network_does_not_take_are_resized_to_the_nearest(
    explained: Explained, size: tuple[int, int], interpolation: str
) -> None:
    """As a photograph is for a file without preprocess, by Pillow."""
    options = {"multiple": MULTIPLE, "interpolation": interpolation}
    seen = [max(round(side / MULTIPLE), 1) * MULTIPLE for side in size]
    free, plain = (
        onnxplain.load(explained(**options, **given), "cpu")
        for given in ({"preprocess": True, "picture": "overlay"}, {})
    )
    assert free.metadata.preprocessing.multiple == MULTIPLE
    photograph = np.asarray(Image.fromarray(noise(5, 7, 3)).resize(size[::-1], Image.BICUBIC))
    found, expected = free(photograph, 1), plain(photograph, 1)
    assert found.pullback.shape == (1, 3, *seen)
    assert found.picture is not None
    assert found.picture.shape == (1, *size, 3)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-2, atol=1e-2)
    g, wanted = found.pullback.ravel(), expected.pullback.ravel()
    assert g @ wanted > 0.999 * np.linalg.norm(g) * np.linalg.norm(wanted)
    rows, columns = (Axis.of_part(n, m, m, 0) for n, m in zip(size, seen, strict=True))
    canvas, look = Canvas(photograph, rows, columns), PictureOptions(style="overlay")
    drawn = painted(canvas.placed(scaled(found.pullback[0], look)[0]), look, photograph)
    np.testing.assert_allclose(found.picture[0].astype(int), np.asarray(drawn), atol=1)


def test_on_the_photograph_a_direction_is_by_its_own_pixels(explained: Explained) -> None:
    """No resize is between: the gradient divided by 255 std."""
    seen, whole = (
        onnxplain.load(explained(preprocess=True, geometry=geometry), "cpu")(noise(33, 71, 3), 1)
        for geometry in ("network", "photograph")
    )
    expected = seen.pullback / (255 * np.array(STD)[:, None, None])
    np.testing.assert_allclose(whole.pullback, expected, rtol=1e-5)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("multiple", [1, MULTIPLE])
def test_a_photograph_is_drawn_as_the_renderer_draws_it(
    explained: Explained, multiple: int, provider: str
) -> None:
    look = "overlay,colours=viridis,percentile=33.333,smoothing=1"
    path = explained(multiple=multiple, preprocess=True, picture=look)
    for size in ((44, 60), (200, 300)):  # no larger than what the renderer shows as it is
        explanation = onnxplain.load(path, provider)(noise(*size, 3), 2)
        options = PictureOptions.of_graph(look)
        values, _ = scaled(explanation.pullback[0], options)
        expected = painted(values, options, explanation.photographs[0])
        assert explanation.picture is not None
        np.testing.assert_allclose(explanation.picture[0].astype(int), np.asarray(expected), atol=1)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("percentile", ["99.123456789", "99.9999", "33.333333333333336"])
def test_a_percentile_of_any_decimals(explained: Explained, percentile: str, provider: str) -> None:
    """The graph counts in whole numbers, which OpenVINO has of 32 bits."""
    look = f"heatmap,percentile={percentile},smoothing=0"
    explanation = onnxplain.load(explained(picture=look), provider)(noise(40, 56, 3), 2)
    magnitudes = np.abs(explanation.pullback[0]).sum(0)
    white = np.percentile(magnitudes, float(percentile), method="higher")
    expected = painted(np.minimum(magnitudes / white, 1), PictureOptions.of_graph(look))
    assert explanation.picture is not None
    np.testing.assert_allclose(explanation.picture[0].astype(int), np.asarray(expected), atol=1)


def test_photographs_of_several_sizes_are_explained_one_by_one(explained: Explained) -> None:
    explainer = onnxplain.load(explained(preprocess=True), "cpu")
    both = [noise(40, 56, 3), noise(33, 71, 3)]
    with pytest.raises(InputError, match="has each photograph's size: explain those of one size"):
        explainer(both)
    shapes = [one.pullback.shape for one in explainer.map(both)]
    assert shapes == [(1, 3, 40, 56), (1, 3, 33, 71)]


@pytest.mark.parametrize("options", [{}, {"preprocess": True}], ids=["floats", "pixels"])
def test_precisions_are_compared_on_photographs_of_several_sizes(
    explained: Explained, options: dict[str, Any], tmp_path: Path
) -> None:
    path, photographs = explained(**options), [noise(40, 56, 3), noise(33, 71, 3), noise(9, 9, 3)]
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, photograph in enumerate([*photographs, photographs[0]]):
        Image.fromarray(photograph).save(folder / f"{i}.png")
    command = ["explain", str(path), str(folder), "-o", str(tmp_path / "out")]
    automatic = ["--precision", "auto", "--provider"]
    done = CliRunner().invoke(app, [*command, *automatic, "openvino"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 images explained" in done.output

    # One photograph too small for the network costs no other its explanation.
    Image.fromarray(noise(2, 2, 3)).save(folder / "0-small.png")
    for more in ([*automatic, "cpu"], ["--batch", "4", "--provider", "openvino"]):
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 1, done.output
        assert "4 of 5 images explained" in done.output
        assert "0-small.png': the network takes sides of 3 pixels or more" in " ".join(
            done.output.split()
        )

    if not options:
        done = CliRunner().invoke(app, ["report", *command[1:3], "-o", str(tmp_path / "r.html")])
        assert "4 of 5 images" in done.output

    # A backend that is wrong at one size alone is found.
    right, broken = onnxplain.load(path, "cpu"), onnxplain.load(path, "cpu")
    compute, channels_last = broken.backend.run, "preprocess" in options

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = dict(compute(inputs))
        side = inputs["image"].shape[2 - channels_last]
        return found | ({"pullback": -found["pullback"]} if side == 33 else {})

    broken.backend.run = run  # type: ignore[method-assign]
    agree = least_agreement(broken, right, samples(right, photographs))
    assert agree.images == 3
    assert agree.pullback < -0.999 < 0.999 < agree.logits


def test_the_box_of_a_detector_and_the_outline_of_a_region() -> None:
    for module, size, more in (
        (detector("yolov8"), DETECTED, {}),
        (segmenter(), None, {"region": REGION}),
    ):
        given = [] if size is None else [size]
        free, fixed = (
            exported(module, *given, picture="overlay", **options)
            for options in ({"size": "any"}, {})
        )
        x = images(2, *given).numpy()
        assert_alike(free(x, 1, **more), fixed(x, 1, **more))


def test_no_pixel_leaves_the_gpu(explained: Explained, environment: dict[str, str]) -> None:
    graphs = [(explained(**CASES[case]), "float32") for case in ("overlay", "nv12", "floats")]
    resized = explained(multiple=MULTIPLE, preprocess=True, picture="overlay")
    graphs.append((resized, "float16"))
    for graph, found in zip(graphs, claims(graphs, environment), strict=True):
        assert isinstance(found, Claims), found
        assert found.whole, (graph, found)


def test_tensorrt_takes_it(explained: Explained) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt import build_engine

    for multiple in (1, MULTIPLE):
        path = explained(multiple=multiple, preprocess=True, picture="overlay")
        engine = build_engine(path, sm=[89], keep=False)
        assert engine.outputs["picture"].dtype == "uint8"


def test_the_file_says_so(explained: Explained) -> None:
    path = explained(preprocess=True, picture="overlay", geometry="photograph")
    said = CliRunner().invoke(app, ["info", str(path)], env={"COLUMNS": "200"}).output
    own = "at its own size; from 3 × 3 on, in the graph"
    for words in (own, "picture [N, h, w, 3]", "pullback [N, 3, h, w]"):
        assert words in said
    cost = Metadata.from_props(read_metadata(path)).multiply_adds
    plain = Metadata.from_props(read_metadata(explained())).multiply_adds
    assert cost == plain


def test_verify_holds_both_parts_to_their_sources(explained: Explained, tmp_path: Path) -> None:
    source = tmp_path / "forward.onnx"
    model = network(40, 56, MULTIPLE)
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "any"
    onnx.save(model, source)
    path = explained(multiple=MULTIPLE, preprocess=True, geometry="photograph")
    assert onnxplain.verify(path, source, images=[noise(50, 37, 3)]).passed
    with pytest.raises(InputError, match="of one size, and these have 36 × 48, 40 × 40 pixels"):
        onnxplain.verify(path, source, images=[noise(50, 37, 3), noise(40, 41, 3)])


def test_what_a_size_of_its_own_leaves_nothing_to_choose_of(tmp_path: Path) -> None:
    onnx.save(network(40, 56), tmp_path / "n.onnx")
    for options in ({"fit": "letterbox"}, {"resize": 300}, {"fill": 7}):
        with pytest.raises(SourceError, match="photographs keep their own sizes: leave out fit"):
            onnxplain.export(
                tmp_path / "n.onnx", tmp_path / "x.onnx", size="any", preprocess=True, **options
            )
