"""The service explains what is no class: regions, objects, vectors and numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from onnxplain.runtime import Explainer
from onnxplain.serve.app import create_app
from onnxplain.serve.schemas import Tensor
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Settings

from ..objectives.kinds import BOX, IN_INPUT, PHOTOGRAPH
from .bodies import arrays, as_png


@pytest.fixture(scope="module")
def client(kinds: dict[str, Explainer]) -> Iterator[TestClient]:
    models = {name: explainer.path for name, explainer in kinds.items()}
    with TestClient(create_app(Service(Settings(models)))) as client:  # type: ignore[arg-type]
        yield client


def url(name: str) -> str:
    return f"/v1/models/{name}:explain"


def coded(picture: Any) -> str:
    return base64.b64encode(as_png(picture)).decode()


def array(tensor: dict[str, Any]) -> Any:
    return Tensor.model_validate(tensor).array()


def test_a_region_is_a_picture(client: TestClient, kinds: dict[str, Explainer]) -> None:
    mask = Image.new("L", (128, 80))
    ImageDraw.Draw(mask).rectangle([24, 0, 63, 79], fill=255)  # the left half of what is seen
    left = np.zeros((8, 8))
    left[:, :4] = 1
    expected = kinds["map"](PHOTOGRAPH, 1, region=left)
    files = {"image": as_png(PHOTOGRAPH), "region": as_png(mask)}
    answer = client.post(url("map"), files=files, data={"targets": "1"}).json()
    assert answer["objective"] == "segment"
    assert answer["targets"] == [
        {"name": "1", "index": 1, "value": pytest.approx(float(expected.objective[0]))}
    ]
    np.testing.assert_allclose(array(answer["pullback"]), expected.pullback, atol=1e-6)
    np.testing.assert_allclose(
        array(answer["outputs"]["output"]), expected.outputs["output"][0], atol=1e-6
    )
    inputs = {"region": {"image": coded(mask)}}
    said = {"image": coded(PHOTOGRAPH), "targets": [1], "inputs": inputs}
    assert client.post(url("map"), json=said).json() == answer
    as_numbers = {**said, "inputs": {"region": left.tolist()}}
    assert client.post(url("map"), json=as_numbers).json() == answer


def test_a_box_is_in_the_photographs_pixels(
    client: TestClient, kinds: dict[str, Explainer]
) -> None:
    expected = kinds["detector"](PHOTOGRAPH, box=IN_INPUT)
    data = {"box": "40,10,90,60"}
    answer = client.post(url("detector"), files={"image": as_png(PHOTOGRAPH)}, data=data).json()
    (found,) = answer["targets"]
    np.testing.assert_allclose(found["box"], BOX, atol=1e-4)
    assert found["value"] == pytest.approx(float(expected.objective[0]), rel=1e-5)
    np.testing.assert_allclose(array(answer["pullback"]), expected.pullback, atol=1e-6)
    assert answer["outputs"].keys() == {"output"}
    in_url = client.post(f"{url('detector')}?box=40,10,90,60", files={"image": as_png(PHOTOGRAPH)})
    assert in_url.json() == answer


def test_several_objects_are_drawn_with_their_boxes(
    client: TestClient, kinds: dict[str, Explainer]
) -> None:
    asked = {"targets": ["-1", "-2"], "output": "png"}
    plain = asked | {"captions": "false"}
    response = client.post(url("detector"), files={"image": as_png(PHOTOGRAPH)}, data=plain)
    drawn = Image.open(io.BytesIO(response.content))
    for k in (0, 1):
        expected = kinds["detector"](PHOTOGRAPH, -1 - k).draw("overlay")
        assert drawn.size == (2 * expected.width, expected.height)
        left = k * expected.width
        picture = drawn.crop((left, 0, left + expected.width, expected.height))
        np.testing.assert_allclose(np.asarray(picture), np.asarray(expected), atol=1)
    response = client.post(url("detector"), files={"image": as_png(PHOTOGRAPH)}, data=asked)
    assert Image.open(io.BytesIO(response.content)).height > drawn.height + 40  # captions
    asked["output"] = "npz"
    found = arrays(client.post(url("detector"), files={"image": as_png(PHOTOGRAPH)}, data=asked))
    assert found["objective"].shape == (2,)
    assert found["explained_box"].shape == (2, 4)
    assert found["output"].ndim == 2


def test_a_vector_and_a_number(client: TestClient, kinds: dict[str, Explainer]) -> None:
    query = [1.0, -2, 0.5, 3, 0]
    said = {"image": coded(PHOTOGRAPH), "inputs": {"query": query}}
    expected = kinds["vector"](PHOTOGRAPH, query=query)
    answer = client.post(url("vector"), json=said).json()
    value = pytest.approx(float(expected.objective[0]), rel=1e-5)
    assert answer["targets"] == [{"name": "embedding", "value": value}]
    said["inputs"] = {"query": Tensor.of(np.float32(query))}  # type: ignore[dict-item]
    assert client.post(url("vector"), json=said).json() == answer

    younger = {"image": coded(PHOTOGRAPH), "inputs": {"direction": -1}, "targets": [0]}
    pullback = array(client.post(url("number"), json=younger).json()["pullback"])
    expected = kinds["number"](PHOTOGRAPH, 0, direction=-1)
    np.testing.assert_allclose(pullback, expected.pullback, atol=1e-6)


def test_requests_of_other_inputs_share_a_call(kinds: dict[str, Explainer]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from onnxplain.serve.settings import Batching

    models = {"map": kinds["map"].path}
    settings = Settings(models, batching=Batching(2, 0.5, 1))  # type: ignore[arg-type]
    with TestClient(create_app(Service(settings))) as client, ThreadPoolExecutor(2) as pool:
        region = np.eye(8).tolist()
        bodies = [
            {"image": coded(PHOTOGRAPH), "inputs": inputs} for inputs in ({}, {"region": region})
        ]
        answers = list(pool.map(lambda body: client.post(url("map"), json=body).json(), bodies))
    for answer, given in zip(answers, ({}, {"region": region}), strict=True):
        expected = kinds["map"](PHOTOGRAPH, **given)
        np.testing.assert_allclose(array(answer["pullback"]), expected.pullback, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("vector", {}, "needs 'query'"),
        ("vector", {"query": [1, 2]}, "has the shape [5]"),
        ("vector", {"query": [0] * 5}, "is 0 everywhere"),
        ("map", {"box": [0, 0, 1, 1]}, "has no input 'box'; it takes 'region'"),
        ("map", {"region": [[0.5]]}, "has the shape [8, 8]"),
        ("map", {"region": {"image": base64.b64encode(b"no").decode()}}, "this is not an image"),
        ("detector", {"box": [0, 0, 200, 60]}, "within the image of 128 × 80 pixels"),
        ("detector", {"box": [0, 0, 10, 60]}, "the network does not see it"),
        ("detector", {"box": [0, 0, 10]}, "has the shape [4]"),
        ("detector", {"box": {"image": coded(PHOTOGRAPH)}}, "is no picture, but numbers"),
    ],
)
def test_a_wrong_input_is_a_sentence(
    client: TestClient, name: str, inputs: dict[str, Any], message: str
) -> None:
    said = {"image": coded(PHOTOGRAPH), "inputs": inputs}
    response = client.post(url(name), json=said)
    assert response.status_code == 422
    assert message in response.json()["error"]


def test_a_wrong_field_is_a_sentence(client: TestClient) -> None:
    image = {"image": as_png(PHOTOGRAPH)}
    for name, data, status, message in (
        ("detector", {"box": "a,b"}, 422, "numbers with commas between"),
        ("detector", {"region": "1"}, 400, "region"),
        ("vector", {"query": "1,2,3,4,5", "targets": "1"}, 422, "has no target"),
        ("map", {"region": "1," * 2**17}, 400, "too long"),
    ):
        response = client.post(url(name), files=image, data=data)
        assert response.status_code == status
        assert message in response.json()["error"]
    both = client.post(
        url("map"), files={**image, "region": as_png(PHOTOGRAPH)}, data={"region": "1"}
    )
    assert "given twice" in both.json()["error"]
    other = client.post(url("map"), files={**image, "query": b"1"})
    assert "'image', or 'region'" in other.json()["error"]


def test_the_models_say_what_they_take(client: TestClient) -> None:
    described = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert described["detector"]["objective"] == "detection"
    (box,) = described["detector"]["inputs"]
    assert (box["name"], box["kind"], box["shape"], box["optional"]) == ("box", "box", [4], True)
    assert not described["vector"]["inputs"][0]["optional"]


def test_kserve_runs_the_graph_as_it_is(client: TestClient, kinds: dict[str, Explainer]) -> None:
    described = client.get("/v2/models/map").json()
    assert [port["name"] for port in described["inputs"]] == ["image", "target", "region"]
    outputs = [port["name"] for port in described["outputs"]]
    assert outputs == ["output", "explained_class", "objective", "pullback"]
    x = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    inputs = [
        {"name": "image", "datatype": "FP32", "shape": [2, 3, 16, 16], "data": x.ravel().tolist()},
        {"name": "target", "datatype": "INT64", "shape": [2, 1], "data": [1, -1]},
    ]
    answer = client.post("/v2/models/map/infer", json={"inputs": inputs}).json()
    found = {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}
    expected = kinds["map"](x, [1, -1])
    np.testing.assert_allclose(found["pullback"], expected.pullback, atol=1e-6)
    np.testing.assert_allclose(found["objective"], expected.objective, atol=1e-6)
    np.testing.assert_allclose(found["output"], expected.outputs["output"], atol=1e-6)
    region = {"name": "region", "datatype": "FP32", "shape": [2, 8, 8], "data": [0.0] * 128}
    refused = client.post("/v2/models/map/infer", json={"inputs": [*inputs, region]})
    assert refused.status_code == 422
    assert "'region' is 0 everywhere" in refused.json()["error"]
