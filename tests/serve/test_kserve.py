"""The KServe v2 protocol, asked by NVIDIA's own client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from onnxplain.serve import tensors

from .process import started

EXAMPLE = Path(__file__).parents[2] / "examples" / "kserve_client.py"


@pytest.fixture(scope="module")
def server(process):
    """The client, connected to a service in another process."""
    client = triton.InferenceServerClient(process.url.removeprefix("http://"))
    yield client
    client.close()


def ask(
    images: np.ndarray, targets: np.ndarray, datatype: str = "FP32", binary: bool = True
) -> list[triton.InferInput]:
    image = triton.InferInput("image", images.shape, datatype)
    image.set_data_from_numpy(images, binary_data=binary)
    target = triton.InferInput("target", targets.shape, "INT64")
    target.set_data_from_numpy(targets, binary_data=binary)
    return [image, target]


def outputs(binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(n, binary_data=binary) for n in ("logits", "pullback")]


@pytest.fixture
def batch(x) -> np.ndarray:
    return np.stack([x, 2 * x, -x])


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_receives_the_runtimes_numbers(server, explainers, batch, binary):
    targets = np.array([[-1], [2], [-2]])
    asked = ask(batch, targets, binary=binary)
    result = server.infer("tiny", asked, outputs=outputs(binary), request_id="42")
    expected = explainers["tiny"](batch, targets[:, 0])
    np.testing.assert_allclose(result.as_numpy("logits"), expected.logits, atol=1e-5)
    np.testing.assert_allclose(result.as_numpy("pullback"), expected.pullback, atol=1e-5)
    assert result.get_response()["id"] == "42"


def test_what_it_asks_by_default_is_binary_both_ways(server, explainers, batch):
    result = server.infer("tiny", ask(batch, np.array([-1, -1, -1])))
    expected = explainers["tiny"](batch)
    np.testing.assert_allclose(result.as_numpy("pullback"), expected.pullback, atol=1e-5)
    assert "data" not in result.get_output("pullback")


@pytest.mark.parametrize(
    ("name", "targets", "datatype"),
    [
        ("multi", [[-1, 2], [0, 1], [4, -5]], "FP32"),
        ("single", [-1, 0, 3], "FP32"),
        ("double", [-1, 0, 3], "FP64"),
    ],
)
def test_graphs_of_every_kind_are_asked_alike(server, explainers, batch, name, targets, datatype):
    images = batch.astype(tensors.DATATYPES[datatype])
    result = server.infer(name, ask(images, np.array(targets), datatype))
    expected = explainers[name](images, targets)
    np.testing.assert_allclose(result.as_numpy("pullback"), expected.pullback, atol=1e-5)


def test_a_graph_with_channels_last_answers_so(server, explainers, batch):
    images = np.ascontiguousarray(np.moveaxis(batch, 1, -1))
    result = server.infer("nhwc", ask(images, np.array([-1, 0, 1])))
    expected = np.moveaxis(explainers["nhwc"](images, [-1, 0, 1]).pullback, 1, -1)
    np.testing.assert_allclose(result.as_numpy("pullback"), expected, atol=1e-5)


def test_a_live_temperature_is_an_input(server, explainers, batch):
    temperature = triton.InferInput("temperature", [1], "FP32")
    temperature.set_data_from_numpy(np.array([2], np.float32))
    result = server.infer("live", [*ask(batch, np.array([-1, -1, -1])), temperature])
    expected = explainers["live"](batch, temperature=2)
    np.testing.assert_allclose(result.as_numpy("pullback"), expected.pullback, atol=1e-5)


def test_requests_in_parallel_are_batched_and_each_gets_its_own(process, explainers, batch):
    with triton.InferenceServerClient(process.url.removeprefix("http://"), concurrency=8) as many:
        asked = [many.async_infer("tiny", ask(k * batch, np.array([1, 1, 1]))) for k in range(20)]
        for k, pending in enumerate(asked):
            expected = explainers["tiny"](k * batch, 1)
            pullback = pending.get_result().as_numpy("pullback")
            np.testing.assert_allclose(pullback, expected.pullback, atol=1e-4)


def test_the_server_and_its_models_describe_themselves(server):
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready("tiny")
    assert server.is_model_ready("tiny", "1")
    assert not server.is_model_ready("other")
    assert "binary_tensor_data" in server.get_server_metadata()["extensions"]
    assert {model["name"] for model in server.get_model_repository_index()} >= {"tiny", "multi"}
    described = server.get_model_metadata("multi")
    assert described["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 3, 6, 8]},
        {"name": "target", "datatype": "INT64", "shape": [-1, -1]},
    ]
    assert described["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "pullback", "datatype": "FP32", "shape": [-1, -1, 3, 6, 8]},
    ]
    assert server.get_model_metadata("single")["inputs"][0]["shape"] == [1, 3, 6, 8]


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("other", {}, "no model"),
        ("tiny", {"targets": np.array([9, 9, 9])}, "out of range"),
        ("tiny", {"targets": np.array([1])}, r"\[3\]"),
        ("tiny", {"images": np.zeros((3, 3, 2, 2), np.float32)}, "shape"),
        ("tiny", {"images": np.zeros((3, 3, 6, 8)), "datatype": "FP64"}, "FP32"),
        ("tiny", {"images": np.full((3, 3, 6, 8), np.nan, np.float32)}, "NaN"),
        ("tiny", {"images": np.zeros((99, 3, 6, 8), np.float32)}, r"16 images|\[99\]"),
    ],
)
def test_what_cannot_be_inferred_is_an_error_of_the_client(server, batch, model, change, words):
    asked = {"images": batch, "targets": np.array([-1, -1, -1])} | change
    with pytest.raises(InferenceServerException, match=words) as caught:
        server.infer(model, ask(**asked))
    assert caught.value.status().startswith("4")
    assert server.is_server_ready()


IMAGE = {"name": "image", "shape": [1, 3, 6, 8], "datatype": "FP32", "data": [0.0] * 144}
TARGET = {"name": "target", "shape": [1], "datatype": "INT64", "data": [-1]}


@pytest.mark.parametrize(
    ("inputs", "more"),
    [
        ([IMAGE], {}),
        ([IMAGE, IMAGE, TARGET], {}),
        ([IMAGE, TARGET | {"name": "other"}], {}),
        ([IMAGE, TARGET | {"data": [1.5]}], {}),
        ([IMAGE, TARGET | {"data": ["a"]}], {}),
        ([IMAGE | {"data": [0.5, "0"] * 72}, TARGET], {}),
        ([IMAGE | {"data": [True] * 144}, TARGET], {}),
        ([IMAGE, TARGET | {"data": [[1], [2, 3]]}], {}),
        ([IMAGE, TARGET | {"data": [True]}], {}),
        ([IMAGE, TARGET | {"data": None}], {}),
        ([IMAGE, TARGET | {"data": [2**70]}], {}),
        ([IMAGE, TARGET | {"datatype": "BYTES"}], {}),
        ([IMAGE, TARGET | {"shape": [2**31, 2**31, 2**31]}], {}),
        ([IMAGE, TARGET | {"shape": [0], "data": []}], {}),
        ([IMAGE, TARGET | {"shape": [0, 2**31, 2**31], "data": []}], {}),
        ([IMAGE, TARGET | {"parameters": {"binary_data_size": 8}}], {}),
        ([IMAGE, TARGET | {"parameters": {"binary_data_size": "8"}, "data": None}], {}),
        ([IMAGE | {"data": [1e300] * 144}, TARGET], {}),
        ([IMAGE, TARGET], {"outputs": [{"name": "other"}]}),
        (
            [IMAGE, TARGET],
            {"outputs": [{"name": "logits", "parameters": {"classification": 3}}]},
        ),
    ],
)
def test_a_request_that_no_client_would_send_is_refused(client, inputs, more):
    response = client.post("/v2/models/tiny/infer", json={"inputs": inputs} | more)
    assert response.status_code in (400, 422), response.text
    assert response.json()["error"]


def test_a_long_text_among_short_ones_takes_no_more_than_its_own_room(client):
    """numpy would make an array of them, each as long as the longest: 4 TB."""
    texts = ["a" * 1_000_000] + [""] * 1_000_000
    inputs = [IMAGE, TARGET | {"data": texts}]
    response = client.post("/v2/models/tiny/infer", json={"inputs": inputs})
    assert response.status_code == 400


@pytest.mark.parametrize("size", [8.0, "8", True, None, [8]])
def test_the_size_of_a_tensors_bytes_is_a_whole_number(client, size):
    target = {key: value for key, value in TARGET.items() if key != "data"}
    inputs = [IMAGE, target | {"parameters": {"binary_data_size": size}}]
    body = json.dumps({"inputs": inputs}).encode()
    headers = {tensors.HEADER_LENGTH: str(len(body))}
    response = client.post("/v2/models/tiny/infer", content=body + bytes(8), headers=headers)
    assert response.status_code == 400, response.text


def test_nested_data_are_the_same_as_flat(client):
    flat = client.post("/v2/models/tiny/infer", json={"inputs": [IMAGE, TARGET]})
    nested = IMAGE | {"data": [[[[0] * 8] * 6] * 3]}
    assert flat.status_code == 200
    assert client.post("/v2/models/tiny/infer", json={"inputs": [nested, TARGET]}).json() == (
        flat.json()
    )


@pytest.mark.parametrize("length", ["-1", "x", "999999", "1", "٣", "9" * 50, ""])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    body = json.dumps({"inputs": [IMAGE, TARGET]}).encode()
    headers = {tensors.HEADER_LENGTH: length.encode()}
    response = client.post("/v2/models/tiny/infer", content=body, headers=headers)
    assert response.status_code == 400


def test_bytes_that_belong_to_no_tensor_are_refused(client):
    body = json.dumps({"inputs": [IMAGE, TARGET]}).encode()
    headers = {tensors.HEADER_LENGTH: str(len(body))}
    response = client.post("/v2/models/tiny/infer", content=body + b"more", headers=headers)
    assert response.status_code == 400
    assert "4 bytes" in response.json()["error"]


def test_the_client_speaks_to_it_with_a_token(graphs, batch):
    with started([graphs["tiny"]], env={"ONNXPLAIN_TOKEN": "s", "PATH": "/usr/bin:/bin"}) as one:
        client = triton.InferenceServerClient(one.url.removeprefix("http://"))
        asked = ask(batch, np.array([-1, -1, -1]))
        with pytest.raises(InferenceServerException, match="token"):
            client.infer("tiny", asked)
        client.infer("tiny", asked, headers={"Authorization": "Bearer s"})


def test_the_example_client_explains_a_photograph(process, explainers, photograph, tmp_path):
    path = tmp_path / "photograph.png"
    Image.fromarray(photograph).save(path)
    command = [sys.executable, EXAMPLE, path, "--url", process.url.removeprefix("http://")]
    options = ["--model", "tiny", "--target", "1", "--out", tmp_path / "pullback.png"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "likeliest classes: [" in done.stdout
    assert np.asarray(Image.open(tmp_path / "pullback.png")).shape == (6, 8, 3)
