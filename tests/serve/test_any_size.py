"""Models that take images of any size: each is explained at its own, and none is too large."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

import onnxplain
from onnxplain.serve.app import create_app
from onnxplain.serve.schemas import Tensor
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Limits, Running, Settings

from ..camera.files import answer, noise
from ..camera.test_any_size import MULTIPLE, network
from ..camera.test_triton import TYPES, packaged
from .bodies import arrays, as_png

SIZES = [(40, 56), (33, 71), (64, 16)]
LEAST = 3
"""Pixels of a side, for a window of 3 × 3 without a border."""

MOST = 7200
"""Pixels in one call: of `SIZES` each goes three times, and the largest two not four times."""

OPTIONS: dict[str, dict[str, Any]] = {
    "floats": {"multi_target": True},
    "multiples": {},
    "pixels": {"preprocess": True, "geometry": "photograph"},
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("any"), dict[str, Path]()
    for name, options in OPTIONS.items():
        source, made[name] = folder / f"{name}.onnx", folder / f"{name}.explain.onnx"
        onnx.save(network(40, 56, MULTIPLE if name == "multiples" else 1), source)
        onnxplain.export(source, made[name], size="any", check=False, **options)
    return made


@pytest.fixture(scope="module")
def client(graphs: dict[str, Path]) -> Iterator[TestClient]:
    settings = Settings(
        graphs, Limits(call_pixels=MOST), running=Running(provider="cpu", threads=1)
    )
    with TestClient(create_app(Service(settings))) as client:
        yield client


def explained(path: Path, images: Any, targets: Any) -> onnxplain.Explanation:
    return onnxplain.load(path, "cpu", threads=1)(images, targets)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_image_is_explained_at_its_own_size(
    client: TestClient, graphs: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    photograph = noise(*size, 3)
    several = name == "floats"
    targets = [1, -1, 2] if several else [1, -1, 2, 0]
    asked = {"targets": [*map(str, targets)], "output": "npz"}
    response = client.post(
        f"/v1/models/{name}:explain", files={"image": as_png(photograph)}, data=asked
    )
    found = arrays(response)
    expected = (
        explained(graphs[name], [photograph], [targets])
        if several
        else explained(graphs[name], [photograph] * 4, targets)
    )
    pullback = expected.pullback.reshape(found["pullback"].shape)
    np.testing.assert_allclose(found["pullback"], pullback, atol=1e-6)
    assert found["pullback"].shape[-2:] == expected.pullback.shape[-2:]
    if name != "multiples":
        assert found["pullback"].shape[-2:] == size


def test_a_picture_is_pythons(client: TestClient, graphs: dict[str, Path]) -> None:
    for name, path in graphs.items():
        photograph = noise(33, 71, 3)
        expected = explained(path, [photograph], None).draw("overlay")
        response = client.post(
            f"/v1/models/{name}:explain",
            files={"image": as_png(photograph)},
            data={"output": "png", "style": "overlay"},
        )
        assert response.status_code == 200, response.text
        found = np.asarray(Image.open(io.BytesIO(response.content)), int)
        assert np.abs(found - np.asarray(expected)).max() <= 1


def test_tensors_say_their_size(client: TestClient, graphs: dict[str, Path]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 20, 24), np.float32)
    sent = {"tensor": Tensor.of(x), "targets": [1], "output": "npz"}
    for name in ("floats", "multiples"):
        found = arrays(client.post(f"/v1/models/{name}:explain", json=sent))
        targets = [[1]] if name == "floats" else 1
        expected = explained(graphs[name], x[None], targets).pullback
        np.testing.assert_allclose(found["pullback"].reshape(expected.shape), expected, atol=1e-6)
    response = client.post(
        "/v1/models/floats:explain",
        content=x.tobytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 422
    assert "JSON, float32 [3, height, width]" in response.json()["error"]


def test_kserve_has_open_sides(client: TestClient, graphs: dict[str, Path]) -> None:
    described = client.get("/v2/models/multiples").json()
    assert described["inputs"][0]["shape"] == [-1, 3, -1, -1]
    assert described["outputs"][-1]["shape"] == [-1, 3, -1, -1]
    x = np.random.default_rng(0).standard_normal((2, 3, 20, 24), np.float32)

    def infer(image: NDArray[np.float32]) -> Any:
        inputs = [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": [*image.shape],
                "data": image.ravel().tolist(),
            },
            {"name": "target", "datatype": "INT64", "shape": [2, 1], "data": [1, -1]},
        ]
        return client.post("/v2/models/multiples/infer", json={"inputs": inputs})

    found = {one["name"]: one for one in infer(x).json()["outputs"]}["pullback"]
    assert found["shape"] == [2, 3, 20, 24]
    expected = explained(graphs["multiples"], x, [1, -1]).pullback
    np.testing.assert_allclose(np.reshape(found["data"], expected.shape), expected, atol=1e-6)
    response = infer(x[..., :-1])
    assert response.status_code == 422
    assert f"multiples of {MULTIPLE}" in response.json()["error"]
    large = np.zeros((2, 3, 88, 88), np.float32)
    assert infer(large).status_code == 413


@pytest.mark.parametrize("name", OPTIONS)
def test_an_image_too_large_for_a_call_is_refused(client: TestClient, name: str) -> None:
    response = client.post(f"/v1/models/{name}:explain", files={"image": as_png(noise(88, 92, 3))})
    assert response.status_code == 413
    assert "at its own size, and 7200 pixels at most, not 92 × 88: send" in response.json()["error"]


def test_targets_too_many_for_a_call_are_refused(client: TestClient) -> None:
    """Of a graph that explains them all in one call, for each of which it has a backward pass."""
    files, targets = {"image": as_png(noise(44, 56, 3))}, ["1", "-1", "2"]
    response = client.post("/v1/models/floats:explain", files=files, data={"targets": targets})
    assert response.status_code == 413
    assert "not 56 × 44 × 3 targets: send a smaller one, or" in response.json()["error"]
    data = {"targets": targets[:2]}
    assert client.post("/v1/models/floats:explain", files=files, data=data).status_code == 200


@pytest.mark.parametrize("name", ["floats", "pixels"])
def test_an_image_too_small_for_the_windows_is_refused(client: TestClient, name: str) -> None:
    photograph, raw = noise(40, LEAST - 1, 3), {"content-type": "application/octet-stream"}
    whole = {"name": "image", "shape": [1, 3, 40, LEAST - 1], "data": [0.0] * 120 * (LEAST - 1)}
    pixels = whole | {"shape": [1, 40, LEAST - 1, 3], "data": photograph.ravel().tolist()}
    given = pixels | {"datatype": "UINT8"} if name == "pixels" else whole | {"datatype": "FP32"}
    target = {"name": "target", "datatype": "INT64", "shape": [1, 1], "data": [1]}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("v1/models/{}:explain", {"files": {"image": as_png(photograph)}}),
        (
            "v1/models/{}:explain?height=40&width=2&pixels=rgb",
            {"content": photograph.tobytes(), "headers": raw},
        ),
        ("v2/models/{}/infer", {"json": {"inputs": [given, target]}}),
    ]
    for url, body in asked:
        response = client.post(url.format(name), **body)
        assert response.status_code == 422, response.text
        assert "or more" in response.text or f"from {LEAST} on" in response.text


def test_the_description_leaves_the_sides_open(client: TestClient) -> None:
    models = client.get("/v1/models").json()["models"]
    assert {tuple(model["input"]) for model in models} == {(3, -1, -1)}


def test_triton_warms_up_with_the_usual_size(graphs: dict[str, Path], tmp_path: Path) -> None:
    for name, image in {"multiples": [3, -1, -1], "pixels": [-1, -1, 3]}.items():
        config, path = packaged(graphs[name], tmp_path / name)
        assert list(config.input[0].dims) == image
        assert list(config.output[-1].dims) == [3, -1, -1]
        for warm in config.model_warmup:
            given = warm.inputs["image"]
            zeros = np.zeros((warm.batch_size, *given.dims), TYPES[given.data_type])
            assert answer(path, zeros)["pullback"].shape == (warm.batch_size, 3, 40, 56)
