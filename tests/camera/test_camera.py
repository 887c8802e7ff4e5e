"""What a file that takes photographs gives for them, run by ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

import onnxplain
from onnxplain.contract.explain import Metadata
from onnxplain.contract.pixels import FORMATS, Pixels
from onnxplain.errors import SourceError
from onnxplain.reference import logits
from onnxplain.runtime.onnx_file import read_metadata

from ..cuda.small import SIZE, network
from .files import MEAN, STD, answer, explain_graph, noise


def by_torchvision(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ImageNet's usual transform, by torchvision on Pillow's image: float [1, 3, H, W]."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            *(v2.Resize(round(SIZE * 256 / 224), antialias=True), v2.CenterCrop(SIZE)),
            *(v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)),
        ]
    )
    return transform(Image.fromarray(pixels)).numpy()[None]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explain_graph(tmp_path_factory.mktemp("plain"))


def assert_like_the_network_s_own(
    path: Path, plain: Path, image: NDArray[np.uint8], photograph: NDArray[np.uint8]
) -> None:
    """To a step of the pixels here and there, which these logits and gradients hardly see."""
    found, expected = answer(path, image), answer(plain, by_torchvision(photograph))
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-3 * largest)
    g, wanted = found["pullback"].ravel(), expected["pullback"].ravel()
    assert g @ wanted > 0.9999 * np.linalg.norm(g) * np.linalg.norm(wanted)


def as_nv12(photograph: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photograph as a camera delivers it, and what OpenCV makes of that."""
    height, width, _ = photograph.shape
    planar = cv2.cvtColor(photograph, cv2.COLOR_RGB2YUV_I420)
    chroma = planar[height:].reshape(2, -1).T.reshape(height // 2, width)
    frame = np.concatenate([planar[:height], chroma])
    return frame, cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)


@pytest.mark.parametrize("pixels", FORMATS)
def test_a_photograph_is_explained_as_torchvision_would_have_prepared_it(
    tmp_path: Path, plain: Path, pixels: str
) -> None:
    photograph = cv2.GaussianBlur(noise(58, 46, 3), (5, 5), 2)
    image: NDArray[np.uint8] = photograph
    if pixels.startswith("bgr"):
        image = image[..., ::-1]
    if pixels.endswith("planar"):
        image = image.transpose(2, 0, 1)
    if pixels == "gray":
        image = image[..., 0]
        photograph = np.repeat(image[..., None], 3, axis=2)
    if pixels == "nv12":
        image, photograph = as_nv12(photograph)
    path = explain_graph(tmp_path, preprocess=True, pixels=pixels)
    assert_like_the_network_s_own(path, plain, np.ascontiguousarray(image)[None], photograph)
    assert Metadata.from_props(read_metadata(path)).pixels == Pixels(pixels)


@pytest.fixture(scope="module")
def taking_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explain_graph(tmp_path_factory.mktemp("photographs"), preprocess=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (500, 7), (36, 36), (20, 25), (301, 200)])
def test_one_file_takes_photographs_of_every_size(
    taking_photographs: Path, plain: Path, size: tuple[int, int]
) -> None:
    photograph = noise(*size, 3)
    assert_like_the_network_s_own(taking_photographs, plain, photograph[None], photograph)


def test_a_batch_holds_photographs_of_one_size(taking_photographs: Path) -> None:
    photographs = noise(3, 44, 61, 3)
    together = answer(taking_photographs, photographs)
    for i in range(3):
        alone = answer(taking_photographs, photographs[i : i + 1])
        np.testing.assert_allclose(together["logits"][i], alone["logits"][0], atol=1e-5)


def by_torch(size: tuple[int, int], g: NDArray[np.float32]) -> NDArray[np.float64]:
    """The gradient by pixels of 0…255, by torch's own antialiased resize in float64."""
    x = torch.zeros(1, 3, *size, dtype=torch.float64, requires_grad=True)
    short = round(SIZE * 256 / 224)
    resized = [short * side // min(size) for side in size]
    y = functional.interpolate(x / 255, resized, mode="bilinear", antialias=True)
    top, left = (round((side - SIZE) / 2) for side in resized)
    y = y[..., top : top + SIZE, left : left + SIZE]
    y = (y - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    (gradient,) = torch.autograd.grad(y, x, torch.from_numpy(g).double())
    return gradient.numpy()


@pytest.mark.parametrize("size", [(60, 47), (25, 31)])
def test_a_direction_comes_back_as_the_gradient_by_the_photograph_s_pixels(
    taking_photographs: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    path = explain_graph(tmp_path, preprocess=True, geometry="photograph")
    photograph = noise(1, *size, 3)
    seen = answer(taking_photographs, photograph)["pullback"]
    found = answer(path, photograph)["pullback"]
    expected = by_torch(size, seen)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def placed(seen: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """[H, W] laid on a photograph of that height and width, pixel by pixel, by the formula."""
    resized = [round(SIZE * 256 / 224) * side // min(size) for side in size]
    first = [round((side - SIZE) / 2) for side in resized]
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            at = [
                (i + 0.5) * new / side - f
                for i, new, side, f in zip((y, x), resized, size, first, strict=True)
            ]
            if not all(0 <= a < SIZE for a in at):
                continue
            v, u = (min(max(a - 0.5, 0), SIZE - 1) for a in at)
            i, j = min(int(v), SIZE - 2), min(int(u), SIZE - 2)
            v, u = v - i, u - j
            (a, b), (c, d) = seen[i : i + 2, j : j + 2]
            out[y, x] = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
    return out


@pytest.mark.parametrize("size", [(50, 33), (17, 24)])
def test_a_map_is_laid_on_the_photograph(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "seen").mkdir()
    options = {"preprocess": True, "method": "gradcam"}
    path = explain_graph(tmp_path, geometry="photograph", **options)
    photograph = noise(1, *size, 3)
    seen = answer(explain_graph(tmp_path / "seen", **options), photograph)["pullback"]
    found = answer(path, photograph)["pullback"]
    assert seen.any()
    expected = placed(seen[0, 0], size)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5 * np.abs(seen).max())


@pytest.mark.parametrize("options", [{"method": "lrp-epsilon"}, {"times_image": True}])
@pytest.mark.parametrize("size", [(130, 97), (17, 24)])
def test_relevances_and_products_keep_their_sum_on_the_photograph(
    tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    (tmp_path / "seen").mkdir()
    seen = explain_graph(tmp_path / "seen", preprocess=True, **options)
    path = explain_graph(tmp_path, preprocess=True, geometry="photograph", **options)
    photograph = noise(*size, 3)
    found, expected = (onnxplain.load(one, "cpu")(photograph, 1) for one in (path, seen))
    np.testing.assert_allclose(found.relevance_sum, expected.relevance_sum, rtol=1e-4)
    std = 255 * np.array(STD)[:, None, None]
    parted = by_torch(size, expected.pullback * std)
    np.testing.assert_allclose(found.pullback, parted, atol=1e-5 * np.abs(parted).max())


@pytest.mark.parametrize(
    "options", [{"preprocess": True, "geometry": "photograph"}, {"quantise_output": "int8"}]
)
def test_a_network_in_float64_puts_its_pullback_out_so_too(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    weights = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, 4))
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
        g (double[N,3,{SIZE},{SIZE}] x) => (double[N,4] y) {{ f = Flatten(x) y = MatMul(f, w) }}"""
    linear = onnx.parser.parse_model(text)
    linear.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(linear, tmp_path / "linear.onnx")
    path = tmp_path / "linear.explain.onnx"
    onnxplain.export(tmp_path / "linear.onnx", path, check=False, **options)
    found = onnxplain.load(path, "cpu")(noise(50, 40, 3), 1).pullback
    expected = weights[None, :, 1].reshape(1, 3, SIZE, SIZE)
    if "geometry" in options:
        expected = by_torch((50, 40), expected)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("multi_target", [False, True])
@pytest.mark.parametrize(("quantised", "step"), [("int8", 1 / 127), ("float16", 2**-11)])
def test_a_quantised_pullback_times_its_scale_is_the_pullback(
    plain: Path, tmp_path: Path, quantised: str, step: float, multi_target: bool
) -> None:
    path = explain_graph(tmp_path, quantise_output=quantised, multi_target=multi_target)
    image = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    target = np.array([[1, 2], [1, 0]] if multi_target else [1, 1])
    found = answer(path, image, target=target)
    assert found["pullback"].dtype == quantised
    assert found["pullback_scale"].shape == target.shape
    pullback = found["pullback"] * found["pullback_scale"][..., None, None, None]
    pullback = pullback[:, 0] if multi_target else pullback
    expected = answer(plain, image)["pullback"]
    largest = np.abs(expected).max((1, 2, 3), keepdims=True)
    assert (np.abs(pullback - expected) <= 0.51 * step * largest).all()


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize(
    "options",
    [{"pixels": "nv12", "picture": "overlay"}, {"pixels": "gray", "geometry": "photograph"}],
)
def test_the_network_behind_the_pixels_is_compared_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    given = {"example": torch.zeros(1, 3, 8, 8), "preprocess": True, **options}
    told = onnxplain.export(module.eval(), tmp_path / "e.onnx", **given)
    assert not [note for note in told.notes if "checked" in note]
    monkeypatch.setattr(logits, "_logits", lambda *_: np.ones((2, 5), np.float32))
    with pytest.raises(SourceError, match="its logits differ from those of its source"):
        onnxplain.export(module.eval(), tmp_path / "e.onnx", **given)


def test_a_quantised_pullback_makes_no_quantised_network(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "n.onnx")
    given = {"check": False, "quantise_output": "int8"}
    told = onnxplain.export(tmp_path / "n.onnx", tmp_path / "e.onnx", **given)
    assert not [note for note in told.notes if "quantised" in note]


def test_a_pullback_of_zeros_is_quantised_to_zeros(tmp_path: Path) -> None:
    path = explain_graph(tmp_path, quantise_output="int8", times_image=True)
    found = answer(path, np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert not found["pullback"].any()
    assert found["pullback_scale"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"step": True, "preprocess": True}, "leave out preprocess"),
        ({"unroll": 2, "quantise_output": "int8"}, "leave out quantise_output"),
        ({"pixels": "bgr"}, "add preprocess"),
        ({"geometry": "photograph"}, "add preprocess"),
        ({"preprocess": True, "pixels": "yuyv"}, "pixels is rgb or rgb-planar or .* not 'yuyv'"),
        ({"fit": "stretch"}, "fit is crop or squash or letterbox, not 'stretch'"),
        ({"interpolation": "cubic"}, "interpolation is nearest or box"),
        ({"quantise_output": "int4"}, "quantise_output is int8 or float16"),
        ({"wrt": "image", "preprocess": True}, "preprocess= is of an image"),
        ({"fill": 300}, "fill is 300, must be 0…255"),
        ({"fit": "squash", "resize": 300}, "resize is of a crop, and squash resizes"),
        ({"fit": "letterbox", "resize": 300}, "resize is of a crop, and letterbox resizes"),
        ({"fit": "squash", "fill": 7}, "squash leaves no border: leave out fill"),
        ({"size": "any", "fill": 7}, "leave out fit=, resize= and fill="),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SourceError, match=sentence):
        explain_graph(tmp_path, **options)
