"""The service gives a file that takes photographs their pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

import onnxplain
from onnxplain.contract.pixels import Pixels
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.pixels import frame as packed
from onnxplain.serve.app import create_app
from onnxplain.serve.batcher import Work
from onnxplain.serve.schemas import Tensor
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Limits, Running, Settings

from ..serve.bodies import arrays, as_png
from .files import noise
from .test_camera import as_nv12

RAW = {"Content-Type": "application/octet-stream"}
HEIGHT, WIDTH = 58, 46


@pytest.fixture(scope="module")
def client(kinds: dict[str, Path]) -> Iterator[TestClient]:
    settings = Settings(kinds, running=Running(provider="cpu", threads=1, loaded=len(kinds)))
    with TestClient(create_app(Service(settings))) as client:
        yield client


@pytest.fixture(scope="module")
def plain(kinds: dict[str, Path]) -> Explainer:
    """What explains the same network's own input, of Pillow's making."""
    return onnxplain.load(kinds["plain"], "cpu", threads=1)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    """Of colours that change slowly: NV12 has them for four pixels at a time."""
    return cv2.resize(noise(5, 4, 3), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def png(photograph: NDArray[np.uint8]) -> bytes:
    return as_png(photograph)


def assert_alike(found: dict[str, NDArray[Any]], expected: onnxplain.Explanation) -> None:
    """To a step of the pixels here and there."""
    largest = np.abs(expected.logits).max()
    np.testing.assert_allclose(found["logits"], expected.logits[0], atol=1e-3 * largest)
    assert found["pullback"].shape == expected.pullback.shape
    g, wanted = found["pullback"].ravel(), expected.pullback.ravel()
    assert g @ wanted > 0.9999 * np.linalg.norm(g) * np.linalg.norm(wanted)


def in_nv12(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is left of a photograph once it is converted to NV12, as OpenCV shows it."""
    frame = packed(Image.fromarray(photograph), Pixels("nv12"))
    assert np.abs(frame.astype(int) - as_nv12(photograph)[0]).mean() < 1
    return cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)


@pytest.mark.parametrize("name", ["rgb", "bgr", "nv12", "targets"])
def test_an_uploaded_image_goes_to_the_graph_as_it_is(
    client: TestClient, plain: Explainer, png: bytes, photograph: NDArray[np.uint8], name: str
) -> None:
    asked = {"targets": ["1", "-1"], "output": "npz"}
    found = arrays(client.post(f"/v1/models/{name}:explain", files={"image": png}, data=asked))
    seen = in_nv12(photograph) if name == "nv12" else photograph
    assert_alike(found, plain([seen] * 2, [1, -1]))


@pytest.mark.parametrize("sent", ["rgb", "bgr", "bgr-planar", "nv12"])
@pytest.mark.parametrize("name", ["plain", "rgb", "nv12"])
def test_every_model_takes_a_cameras_frame(
    client: TestClient, plain: Explainer, photograph: NDArray[np.uint8], name: str, sent: str
) -> None:
    frame, seen = {
        "rgb": (photograph, photograph),
        "bgr": (photograph[..., ::-1], photograph),
        "bgr-planar": (photograph[..., ::-1].transpose(2, 0, 1), photograph),
        "nv12": as_nv12(photograph),
    }[sent]
    if name == "nv12" != sent:
        seen = in_nv12(photograph)
    response = client.post(
        f"/v1/models/{name}:explain?width={WIDTH}&height={HEIGHT}&pixels={sent}&output=npz&targets=1",
        content=np.ascontiguousarray(frame).tobytes(),
        headers=RAW,
    )
    assert_alike(arrays(response), plain(seen, 1))


def test_a_frame_is_in_the_models_own_order_unless_it_is_said(
    client: TestClient, plain: Explainer, photograph: NDArray[np.uint8]
) -> None:
    frame, seen = as_nv12(photograph)
    url = f"/v1/models/nv12:explain?width={WIDTH}&height={HEIGHT}&output=npz"
    found = arrays(client.post(url, content=frame.tobytes(), headers=RAW))
    assert_alike(found, plain(seen))


def test_a_frame_of_grey_shows_grey(client: TestClient, plain: Explainer) -> None:
    grey = cv2.GaussianBlur(noise(HEIGHT, WIDTH), (5, 5), 2)
    url = f"/v1/models/rgb:explain?width={WIDTH}&height={HEIGHT}&pixels=gray&output=npz"
    found = arrays(client.post(url, content=grey.tobytes(), headers=RAW))
    assert_alike(found, plain(grey))


def test_json_holds_pixels(
    client: TestClient, plain: Explainer, photograph: NDArray[np.uint8]
) -> None:
    body = {"tensor": Tensor.of(photograph), "output": "npz"}
    found = arrays(client.post("/v1/models/rgb:explain", json=body))
    assert_alike(found, plain(photograph))


def test_a_pullback_of_the_photographs_size_comes_in_floats(
    client: TestClient, kinds: dict[str, Path], png: bytes, photograph: NDArray[np.uint8]
) -> None:
    url = "/v1/models/whole:explain?output=npz"
    found = arrays(client.post(url, files={"image": png}))
    expected = onnxplain.load(kinds["whole"], "cpu", threads=1)(photograph)
    assert found["pullback"].shape == (1, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(found["pullback"], expected.pullback, atol=1e-6)


@pytest.mark.parametrize("name", ["rgb", "whole", "nv12"])
def test_a_picture_is_as_large_as_the_photograph(
    client: TestClient, kinds: dict[str, Path], png: bytes, photograph: NDArray[np.uint8], name: str
) -> None:
    url = f"/v1/models/{name}:explain?output=png&style=heatmap&captions=false&colour_bar=false"
    found = np.asarray(Image.open(io.BytesIO(client.post(url, files={"image": png}).content)))
    explained = onnxplain.load(kinds[name], "cpu", threads=1)(photograph)
    expected = explained.draw("heatmap", captions=False, colour_bar=False)
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_a_picture_that_is_not_of_this_pullback_is_refused(client: TestClient, png: bytes) -> None:
    url = "/v1/models/whole:explain?output=png&size=network"
    response = client.post(url, files={"image": png})
    assert response.status_code == 422
    assert "of the whole photograph" in response.json()["error"]


def test_photographs_of_one_size_share_a_call() -> None:
    def of(height: int) -> Work:
        return Work(np.zeros((1, height, 8, 3), np.uint8), np.zeros(1, np.int64))

    assert of(6).fits(of(6))
    assert not of(6).fits(of(7))


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_takes_frames_of_uint8(client: TestClient, plain: Explainer, binary: bool) -> None:
    """Two photographs of one size in a request, in JSON or as bytes."""
    images = np.stack([cv2.GaussianBlur(noise(40, 36, 3, seed=i), (5, 5), 2) for i in range(2)])
    image: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": list(images.shape)}
    target = {"name": "target", "datatype": "INT64", "shape": [2], "data": [1, 1]}
    outputs = {"inputs": [image | {"data": images.reshape(-1).tolist()}, target]}
    url = "/v2/models/rgb/infer"
    if binary:
        image["parameters"] = {"binary_data_size": images.nbytes}
        head = client.build_request("POST", url, json={"inputs": [image, target]}).content
        headers = {"Inference-Header-Content-Length": str(len(head)), **RAW}
        answer = client.post(url, content=head + images.tobytes(), headers=headers)
    else:
        answer = client.post(url, json=outputs)
    assert answer.status_code == 200, answer.text
    found = {
        one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]
    }
    expected = plain([*images], [1, 1])
    for i in range(2):
        one = {"logits": found["logits"][i], "pullback": found["pullback"][i : i + 1]}
        assert_alike(one, expected[i])


def test_models_say_what_they_take(client: TestClient) -> None:
    inputs = {
        name: client.get(f"/v2/models/{name}").json()["inputs"][0]
        for name in ("plain", "rgb", "nv12")
    }
    assert inputs["plain"] == {"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}
    assert inputs["rgb"] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert inputs["nv12"] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1]}
    outputs = client.get("/v2/models/whole").json()["outputs"]
    assert outputs[-1] == {"name": "pullback", "datatype": "FP32", "shape": [-1, 3, -1, -1]}
    models = client.get("/v1/models").json()["models"]
    assert {one["name"]: one["pixels"] for one in models}["nv12"] == "nv12"
    (explain,) = (
        path["post"]
        for name, path in client.get("/openapi.json").json()["paths"].items()
        if name.endswith(":explain")
    )
    assert {"width", "height", "pixels"} <= {one["name"] for one in explain["parameters"]}


FRAME = np.zeros((4, 6, 3), np.uint8).tobytes()


@pytest.mark.parametrize(
    ("name", "query", "content", "status", "sentence"),
    [
        ("rgb", "", FRAME, 422, "?width=640&height=480"),
        ("rgb", "width=6&height=5", FRAME, 422, "rgb with 6 × 5 pixels has 90 bytes, not 72"),
        ("rgb", "width=6", FRAME, 422, "?width=640&height=480"),
        ("rgb", "width=6&height=0", FRAME, 400, "height"),
        ("rgb", "width=6&height=4&pixels=yuyv", FRAME, 400, "pixels"),
        ("rgb", "width=6&height=4&width=6", FRAME, 400, "given once"),
        ("nv12", "width=5&height=8", FRAME, 422, "5 × 8 is not even"),
        ("plain", "width=7&height=4", FRAME, 422, "not 72"),
        ("plain", "", FRAME, 422, "a frame says its width and height in the URL"),
    ],
)
def test_what_is_no_frame_is_a_sentence(
    client: TestClient, name: str, query: str, content: bytes, status: int, sentence: str
) -> None:
    answer = client.post(f"/v1/models/{name}:explain?{query}", content=content, headers=RAW)
    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text


def test_what_does_not_go_together_is_a_sentence(
    client: TestClient, png: bytes, photograph: NDArray[np.uint8]
) -> None:
    answer = client.post("/v1/models/rgb:explain?width=6", files={"image": png})
    assert (answer.status_code, "width in the URL" in answer.json()["error"]) == (422, True)
    floats = Tensor.of(np.zeros((3, 32, 32), np.float32))
    answer = client.post("/v1/models/rgb:explain", json={"tensor": floats})
    assert (answer.status_code, "takes a photograph's pixels" in answer.json()["error"]) == (
        422,
        True,
    )
    odd = {"name": "image", "datatype": "UINT8", "shape": [1, 4, 4], "data": [0] * 16}
    target = {"name": "target", "datatype": "INT64", "shape": [1], "data": [1]}
    answer = client.post("/v2/models/nv12/infer", json={"inputs": [odd, target]})
    assert (answer.status_code, "not 4 rows of 4" in answer.json()["error"]) == (422, True)


def test_a_request_has_so_many_pixels_and_the_service_so_much_memory(
    kinds: dict[str, Path], png: bytes
) -> None:
    few = Limits(pixels=3 * HEIGHT * WIDTH, held_bytes=len(png) + 2 * HEIGHT * WIDTH)
    running = Running(provider="cpu", threads=1)
    with TestClient(create_app(Service(Settings(kinds, few, running=running)))) as client:
        for targets, status, sentence in ((4, 413, "ask for fewer"), (1, 503, "memory")):
            answer = client.post(
                "/v1/models/rgb:explain", files={"image": png}, data={"targets": ["1"] * targets}
            )
            assert (answer.status_code, sentence in answer.json()["error"]) == (status, True)
