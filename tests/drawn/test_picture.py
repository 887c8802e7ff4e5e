"""A graph draws what the NumPy renderer draws of its pullback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.picture import DRAWN, PictureOptions
from onnxplain.errors import InputError, SourceError
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.conversion.half import convert
from onnxplain.runtime.fake_cuda.ask import Claims, claims
from onnxplain.runtime.inputs.batches import placement
from onnxplain.runtime.pictures.canvas import Axis, Canvas
from onnxplain.runtime.pictures.marks import outlined
from onnxplain.runtime.pictures.render import painted, scaled

from ..objectives.networks import exported, images, seeded
from ..objectives.networks import vector as classifier
from ..objectives.test_detectors import SIZE as DETECTED
from ..objectives.test_detectors import network as detector
from ..objectives.test_maps import REGION
from ..objectives.test_maps import network as segmenter

HEIGHT, WIDTH, CLASSES = 40, 56, 7
SIGNED = "overlay,signed=true,smoothing=0"
LAYER = "overlay,transparent=true"
PICTURES = (*DRAWN, SIGNED, LAYER, "heatmap,colours=viridis,percentile=20")

Written = Callable[..., Path]


def forward(
    channels: int = 3,
    nhwc: bool = False,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    gain: float = 1,
) -> Any:
    """Two convolutions, between them a ReLU, and a head."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, channels, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, CLASSES)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    weights[-1] = numpy_helper.from_array(gain * numpy_helper.to_array(weights[-1]), "w3")
    sizes = [*size, channels] if nhwc else [channels, *size]
    first = helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])
    nodes = [
        first if nhwc else helper.make_node("Identity", ["image"], ["x"]),
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *sizes])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Explain graphs, each exported once."""
    folder, known = tmp_path_factory.mktemp("drawn"), dict[str, Path]()

    def write(source: dict[str, Any] | None = None, **options: Any) -> Path:
        key = repr((source, options))
        if key not in known:
            given, path = folder / f"{len(known)}.onnx", folder / f"{len(known)}.explain.onnx"
            onnx.save(forward(**(source or {})), given)
            onnxplain.export(given, path, **options)
            known[key] = path
        return known[key]

    return write


def x(count: int = 2, channels: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, channels, *size)).astype(np.float32)


def drawn(explanation: Explanation, look: PictureOptions) -> np.ndarray:
    """What the renderer draws, [N, K, H, W, 3], as large as what the network sees."""
    return np.array(
        [
            [row.drawn(k, look, as_seen(row.photograph))[0] for k in range(len(row.targets))]
            for row in explanation.rows()
        ]
    )


def as_seen(photograph: np.ndarray) -> Canvas:
    canvas = Canvas.of_network(photograph)
    height, width = photograph.shape[:2]
    rows, columns = (type(canvas.rows).repeated(n, 1) for n in (height, width))
    return Canvas(photograph, rows, columns)


def agree(explanation: Explanation, picture: str, within: int = 1) -> None:
    assert explanation.picture is not None
    assert explanation.picture.dtype == np.uint8
    expected = drawn(explanation, PictureOptions.of_graph(picture)).astype(int)
    found = explanation.picture.reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=within)
    assert np.ptp(found) > 50


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("picture", PICTURES)
def test_it_is_the_renderers(written: Written, picture: str, provider: str) -> None:
    explainer = onnxplain.load(written(picture=picture, topk=3), provider)
    explanation = explainer(x(5), [-1, 0, 2, -2, 3], batch_size=2)
    agree(explanation, picture)
    channels = PictureOptions.of_graph(picture).channels
    assert explanation.picture.shape == (5, HEIGHT, WIDTH, channels)
    agree(explanation[3], picture)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("picture", ["overlay", "pullback"])
def test_it_has_an_axis_of_targets(written: Written, picture: str, provider: str) -> None:
    explainer = onnxplain.load(written(picture=picture, multi_target=True), provider)
    explanation = explainer(x(), [[-1, -2, 3], [0, 1, 2]])
    assert explanation.picture.shape == (2, 3, HEIGHT, WIDTH, 3)
    agree(explanation, picture)


@pytest.mark.parametrize("picture", ["overlay", "pullback"])
@pytest.mark.parametrize(
    ("source", "options"),
    [
        ({"nhwc": True}, {}),
        ({"channels": 1}, {"multi_target": True}),
        ({"channels": 4}, {}),
        ({}, {"method": "gradcam"}),
        ({}, {"method": "lrp-zplus"}),
        ({}, {"estimator": "smoothgrad", "parameters": {"samples": 2}}),
        ({"nhwc": True, "channels": 1}, {"multi_target": True}),
    ],
)
def test_of_other_layouts_channels_and_kinds(
    written: Written, source: dict[str, Any], options: dict[str, Any], picture: str
) -> None:
    several = options.get("multi_target")
    explainer = onnxplain.load(written(source, picture=picture, **options), "cpu")
    batch = x(2, source.get("channels", 3))
    batch = batch.transpose(0, 2, 3, 1) if source.get("nhwc") else batch
    agree(explainer(batch, [[-1, 2], [0, 1]] if several else [1, -1]), picture)


def test_more_values_than_tensorrt_sorts(written: Written) -> None:
    """Of every other row and column."""
    size = (96, 112)
    picture = "heatmap,percentile=50,smoothing=1"
    explainer = onnxplain.load(written({"size": size}, picture=picture), "cpu")
    agree(explainer(x(1, size=size)), picture)


def test_a_pullback_of_zeros_is_cold(written: Written) -> None:
    model = onnx.load(written(picture="overlay"))
    for weight in model.graph.initializer:
        if weight.name == "w3":
            weight.CopyFrom(numpy_helper.from_array(np.zeros((8, CLASSES), np.float32), "w3"))
    path = written(picture="overlay").with_name("zeros.explain.onnx")
    onnx.save(model, path)
    explanation = onnxplain.load(path, "cpu")(x(1), 0)
    assert not explanation.pullback.any()
    np.testing.assert_allclose(
        explanation.picture[:, None], drawn(explanation, PictureOptions(style="overlay")), atol=1
    )


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("picture", ["heatmap", "signed", "pullback"])
def test_one_image_that_is_not_finite_costs_no_other_its_picture(
    written: Written, picture: str, provider: str
) -> None:
    path = written({"gain": 1e10}, picture=picture, method="input-x-gradient")
    explainer, batch = onnxplain.load(path, provider), x()
    batch[0, :, 20:24, 30:36] *= 1e33
    with pytest.raises(InputError, match="not finite"):
        explainer(batch, [1, 2])
    explainer.allow_nonfinite = True
    explanation = explainer(batch, [1, 2])
    assert not np.isfinite(explanation.pullback[0]).all()
    assert np.isfinite(explanation.pullback[1]).all()
    agree(explanation, picture)
    agree(explanation[1], picture)


def test_the_likeliest_classes(written: Written) -> None:
    explanation = onnxplain.load(written(picture="heatmap", topk=3), "cpu")(x(4))
    classes, probabilities = (
        explanation.outputs[name] for name in ("top_classes", "top_probabilities")
    )
    assert (classes.dtype, probabilities.dtype) == (np.int64, np.float32)
    ranking = np.argsort(-explanation.logits, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(classes, ranking)
    powers = np.exp(explanation.logits.astype(float))
    expected = np.take_along_axis(powers / powers.sum(1, keepdims=True), ranking, 1)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_the_likeliest_of_a_sigmoid(tmp_path: Path) -> None:
    network = nn.Sequential(classifier(5), nn.Sigmoid())
    path = tmp_path / "sigmoid.onnx"
    onnxplain.export(network, path, example=images(), topk=2)
    explanation = onnxplain.load(path, "cpu")(images().numpy())
    expected = np.sort(1 / (1 + np.exp(-explanation.logits.astype(float))), 1)[:, :2:-1]
    np.testing.assert_allclose(explanation.outputs["top_probabilities"], expected, rtol=1e-5)


@pytest.mark.parametrize("picture", ["overlay", LAYER])
def test_the_box_of_a_detector(picture: str) -> None:
    explainer = exported(detector("yolov8"), DETECTED, picture=picture)
    explanation = explainer(images(2, DETECTED).numpy(), [-1, -2])
    agree(explanation, picture)
    plain = drawn(explanation, PictureOptions(style="heatmap"))
    assert (explanation.picture == 255).all(-1).sum() > (plain == 255).all(-1).sum()


def test_the_boxes_of_several_objects() -> None:
    explainer = exported(detector("yolov8"), DETECTED, picture="overlay", multi_target=True)
    agree(explainer(images(2, DETECTED).numpy(), [[-1, -2], [-2, -1]]), "overlay")


@pytest.mark.parametrize("multi_target", [False, True])
def test_the_outline_of_a_region(multi_target: bool) -> None:
    explainer = exported(segmenter(), picture="overlay", multi_target=multi_target)
    target = [[1, 2], [0, 3]] if multi_target else 1
    explanation = explainer(images().numpy(), target, region=REGION)
    agree(explanation, "overlay")
    without = explainer(images().numpy(), target)
    agree(without, "overlay")
    assert (explanation.picture != without.picture).any()


def test_halves_draw_their_own_pullback(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(convert(written(picture="overlay", topk=3), "float16"))
    explanation = Explainer(onnxplain.load(path, "cpu").backend)(x())
    agree(explanation, "overlay")
    classes = explanation.outputs["top_classes"]
    np.testing.assert_array_equal(classes[:, 0], explanation.logits.argmax(1))


def test_no_node_leaves_the_gpu(
    written: Written, environment: dict[str, str], tmp_path: Path
) -> None:
    graphs = [(written(picture=picture, topk=3), "float32") for picture in DRAWN]
    graphs.append((written(picture="overlay", multi_target=True), "float16"))
    graphs += [(written(picture=style, preprocess=True), "float32") for style in DRAWN]
    module = detector("yolov8")
    onnxplain.export(
        module, tmp_path / "boxes.onnx", example=images(2, DETECTED), picture="overlay"
    )
    onnxplain.export(segmenter(), tmp_path / "region.onnx", example=images(), picture="overlay")
    graphs += [(tmp_path / f"{name}.onnx", "float32") for name in ("boxes", "region")]
    for graph, claim in zip(graphs, claims(graphs, environment), strict=True):
        assert isinstance(claim, Claims), claim
        assert claim.whole, (graph, claim)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_tensorrt_takes_it(written: Written, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt import build_engine

    onnxplain.export(segmenter(), tmp_path / "r.onnx", example=images(), picture="overlay")
    paths = [tmp_path / "r.onnx", written(picture="pullback", topk=3)]
    paths.append(written(picture="overlay", multi_target=True))
    for path in paths if precision == "float32" else paths[-1:]:
        engine = build_engine(path, sm=[89], precision=precision, keep=False)
        assert engine.outputs["picture"].dtype == "uint8"
        assert engine.outputs["picture"].shape[-1] == 3


# Of a camera's pixels, on the whole photograph


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (9, 13, 3), np.uint8)
    return Image.fromarray(pixels).resize((300, 200), Image.Resampling.BICUBIC)


def from_camera(
    path: Path, photograph: Image.Image, provider: str, **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """What a plain runtime gives, by name."""
    feeds = {"image": np.asarray(photograph)[None], **inputs}
    if provider == "cpu":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(feeds)
    return {output.any_name: found[output] for output in compiled.outputs}


def on_photograph(path: Path, photograph: Image.Image) -> Canvas:
    pre = Metadata.from_props(
        {p.key: p.value for p in onnx.load(path).metadata_props}
    ).preprocessing
    return Canvas.of_photograph(photograph, (pre.height, pre.width), pre, max(photograph.size))


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("picture", DRAWN)
def test_a_camera_s_picture_is_of_the_whole_photograph(
    written: Written, photograph: Image.Image, picture: str, provider: str
) -> None:
    path = written(picture=picture, preprocess=True)
    for size in ((300, 200), (260, 700)):
        shown = photograph.resize(size)
        found = from_camera(path, shown, provider, target=np.array([-1]))
        look, canvas = PictureOptions.of_graph(picture), on_photograph(path, shown)
        values, _ = scaled(found["pullback"][0], look)
        expected = painted(canvas.placed(values), look, canvas.photograph)
        assert found["picture"].shape == (1, *size[::-1], 3)
        np.testing.assert_allclose(found["picture"][0], np.asarray(expected).astype(int), atol=1)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"preprocess": True}, "[N, h, w, 3]"),
        ({"multi_target": True}, f"[N, K, {HEIGHT}, {WIDTH}, 3]"),
        ({}, f"[N, {HEIGHT}, {WIDTH}, 3]"),
    ],
)
def test_info_names_the_open_sizes_of_a_picture(
    written: Written, options: dict[str, bool], sizes: str
) -> None:
    path = written(picture="overlay", **options)
    said = CliRunner().invoke(app, ["info", str(path)], env={"COLUMNS": "200"}).output
    assert f"picture {sizes}" in said


@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (640, 1), (2000, 30), (300, 200)])
def test_a_camera_s_picture_however_it_is_fitted(
    written: Written, photograph: Image.Image, fit: str, size: tuple[int, int]
) -> None:
    path, shown = written(picture="overlay", preprocess=True, fit=fit), photograph.resize(size)
    found = from_camera(path, shown, "cpu", target=np.array([-1]))
    look, pre = PictureOptions(style="overlay"), onnxplain.load(path, "cpu").metadata.preprocessing
    wide, high = (Axis.of_part(n, *p) for n, p in zip(size, _parts(size, pre), strict=True))
    canvas = Canvas(np.asarray(shown), high, wide)
    expected = painted(
        canvas.placed(scaled(found["pullback"][0], look)[0]), look, canvas.photograph
    )
    np.testing.assert_allclose(found["picture"][0], np.asarray(expected).astype(int), atol=1)


def _parts(size: tuple[int, int], pre: Preprocessing) -> list[tuple[int, int, int]]:
    """Of width and height: how many pixels the network sees, of how many, from which on."""
    resized, offset = placement(size, pre)
    return list(zip((pre.width, pre.height), resized, offset, strict=True))


def test_an_explainer_gives_the_graph_s_picture(written: Written, photograph: Image.Image) -> None:
    for provider in ("cpu", "openvino"):
        explainer = onnxplain.load(written(picture="overlay", preprocess=True), provider)
        explanation = explainer([photograph, photograph], [1, -1])
        assert explanation.picture.shape == (2, 200, 300, 3)
        drawn = np.asarray(explanation[1].draw("overlay")).astype(int)
        np.testing.assert_allclose(explanation[1].picture[0], drawn, atol=1)
        with pytest.raises(InputError, match="explain those of one size together"):
            explainer([photograph, photograph.resize((200, 200))])


def test_a_pullback_on_the_photograph_is_drawn_where_it_lies(
    written: Written, photograph: Image.Image
) -> None:
    path = written(preprocess=True, geometry="photograph", picture="overlay")
    explanation = onnxplain.load(path, "cpu")(photograph)
    assert explanation.pullback.shape == (1, 3, 200, 300)
    look = PictureOptions(style="overlay")
    expected = painted(scaled(explanation.pullback[0], look)[0], look, np.asarray(photograph))
    np.testing.assert_array_equal(explanation.draw("overlay"), expected)
    seen = onnxplain.load(written(preprocess=True, picture="overlay"), "cpu")(photograph)
    np.testing.assert_array_equal(explanation.picture, seen.picture)


def test_a_pullback_on_the_photograph_is_drawn_as_large_as_asked(
    written: Written, photograph: Image.Image
) -> None:
    path = written(preprocess=True, geometry="photograph", picture="overlay")
    explanation = onnxplain.load(path, "cpu")(photograph)
    assert explanation.draw("heatmap", longest=150).size == (150, 100)
    with pytest.raises(InputError, match="is of the whole photograph, and not of what the network"):
        explanation.draw("overlay", size="network")


def test_the_region_of_a_pullback_on_the_photograph(
    tmp_path: Path, photograph: Image.Image
) -> None:
    drawn = []
    for geometry in ("photograph", "network"):
        path, options = tmp_path / f"{geometry}.onnx", {"preprocess": True, "geometry": geometry}
        onnxplain.export(segmenter(), path, example=images(), **options)
        explanation = onnxplain.load(path, "cpu")(photograph, 1, region=REGION)
        drawn.append((np.asarray(explanation.draw("overlay")) == 255).all(-1))
    assert (drawn[0] & drawn[1]).sum() > 0.9 * drawn[1].sum() > 50


def test_the_box_of_a_pullback_on_the_photograph(tmp_path: Path, photograph: Image.Image) -> None:
    drawn = []
    for geometry in ("photograph", "network"):
        path, options = tmp_path / f"{geometry}.onnx", {"preprocess": True, "geometry": geometry}
        onnxplain.export(detector("yolov8"), path, example=images(2, DETECTED), **options)
        explanation = onnxplain.load(path, "cpu")(photograph, -1)
        drawn.append(np.asarray(explanation.draw("overlay")) == 255)
    white = [picture.all(-1) for picture in drawn]
    assert (white[0] & white[1]).sum() > 0.9 * white[1].sum() > 50


def test_a_camera_s_pictures_of_several_targets(written: Written, photograph: Image.Image) -> None:
    path = written(
        picture="overlay", preprocess=True, multi_target=True, pixels="bgr", quantise_output="int8"
    )
    target, bgr = np.array([[-1, 2]]), Image.fromarray(np.asarray(photograph)[..., ::-1])
    found = from_camera(path, bgr, "cpu", target=target)
    look, canvas = PictureOptions(style="overlay"), on_photograph(path, photograph)
    plain = from_camera(
        written(picture="overlay", preprocess=True, multi_target=True), photograph, "cpu",
        target=target,
    )  # fmt: skip
    assert found["pullback"].dtype == np.int8  # and the picture is of what it was before
    for k in (0, 1):
        values, _ = scaled(plain["pullback"][0, k], look)
        expected = painted(canvas.placed(values), look, canvas.photograph)
        np.testing.assert_allclose(found["picture"][0, k], np.asarray(expected).astype(int), atol=1)


def test_a_camera_s_picture_shows_the_box(tmp_path: Path, photograph: Image.Image) -> None:
    path = tmp_path / "x.onnx"
    onnxplain.export(
        detector("yolov8"), path, example=images(2, DETECTED), picture="overlay", preprocess=True
    )
    found = from_camera(path, photograph, "cpu", target=np.array([-1]), box=np.zeros((1, 4), "f4"))
    canvas, look = on_photograph(path, photograph), PictureOptions(style="overlay")
    values, _ = scaled(found["pullback"][0], look)
    drawn = painted(canvas.placed(values), look, canvas.photograph)
    expected = outlined(drawn, canvas.boxes(found["explained_box"]))
    np.testing.assert_allclose(found["picture"][0], np.asarray(expected).astype(int), atol=1)
    assert np.ptp(np.asarray(drawn).astype(int) - found["picture"][0]) > 100


def test_tensorrt_takes_a_camera_s(written: Written) -> None:
    """Any photograph from 64 × 64 to 1920 × 1080."""
    trt = pytest.importorskip("tensorrt_rtx")
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    path = written(picture="overlay", preprocess=True)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("image", (1, 64, 64, 3), (1, 480, 640, 3), (2, 1080, 1920, 3))
    profile.set_shape("target", (1,), (1,), (2,))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network, config) is not None


# What does not go together


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture": "grid"}, "a graph draws heatmap, overlay, signed, pullback, and no grid"),
        ({"picture": "cubist"}, "style is one of"),
        ({"picture": "overlay,size=network"}, "of colours, signed, .*; not 'size=network'"),
        ({"picture": "overlay,signed"}, "NAME=VALUE of colours, signed, .*; not 'signed'"),
        ({"picture": "overlay,signed=yes"}, "signed of a picture is true or false, not 'yes'"),
        ({"picture": "overlay,alpha=much"}, "alpha of a picture is a number, not 'much'"),
        ({"picture": "overlay,colours=coolwarm"}, "shows strengths"),
        ({"picture": PictureOptions(style="overlay", captions=True)}, "captions is of pages"),
        ({"picture": "overlay", "unroll": 2}, "a file with unroll has none"),
        ({"topk": 2, "unroll": 2}, "a file with unroll has none"),
        ({"topk": 0}, "at least 1, not 0"),
        ({"topk": CLASSES + 1}, "topk is 8, and the network has 7 classes"),
        ({"picture": "overlay", "wrt": "b"}, "picture= is of an image"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    onnx.save(forward(), tmp_path / "forward.onnx")
    with pytest.raises((SourceError, InputError), match=message):
        onnxplain.export(tmp_path / "forward.onnx", tmp_path / "x.onnx", **options)
    assert not (tmp_path / "x.onnx").exists()


def test_no_ranking_of_what_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="of objective 'segment' leave it out"):
        onnxplain.export(segmenter(), tmp_path / "x.onnx", example=images(), topk=2)


# Commands


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.replace("│", " ").split())


def test_the_command_exports_and_tells_of_them(tmp_path: Path) -> None:
    onnx.save(forward(), tmp_path / "forward.onnx")
    path = tmp_path / "x.onnx"
    look = "overlay,colours=cividis,alpha=0.5"
    run("export", tmp_path / "forward.onnx", "-o", path, "--picture", look, "--topk", 2)
    told = run("info", path)
    assert f"picture [N, {HEIGHT}, {WIDTH}, 3]" in told
    assert "top_classes [N, 2] top_probabilities [N, 2]" in told
    agree(onnxplain.load(path, "cpu")(x()), look)


def test_a_network_with_values_of_these_names(tmp_path: Path) -> None:
    model = forward()
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {"b": "picture", "d": "top_classes"}.get(name, name)
    onnx.save(model, tmp_path / "forward.onnx")
    onnxplain.export(tmp_path / "forward.onnx", tmp_path / "x.onnx", picture="heatmap", topk=1)
    agree(onnxplain.load(tmp_path / "x.onnx", "cpu")(x()), "heatmap")


def test_verify_looks_at_the_pullback_alone(tmp_path: Path) -> None:
    module = seeded(lambda: nn.Sequential(classifier(4)))
    path = tmp_path / "x.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, 3, 16, 16), picture="overlay", topk=2)
    assert onnxplain.verify(path, module).passed
