"""`POST /v1/models/{name}:explain`: every way to ask, and every way to be answered."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxplain.serve.answer import gather, render
from onnxplain.serve.batcher import Work
from onnxplain.serve.decode import Prepared
from onnxplain.serve.schemas import Options, Tensor

from .bodies import arrays


def array(tensor: dict[str, Any]) -> np.ndarray:
    return Tensor.model_validate(tensor).array()


@pytest.mark.parametrize("name", ["tiny", "multi", "live", "single", "four", "nhwc", "double"])
def test_an_uploaded_image_is_explained_as_the_runtime_does(
    client, explainers, photograph, png, name
):
    response = client.post(
        f"/v1/models/{name}:explain", files={"image": png}, data={"output": "npz"}
    )
    answer = arrays(response)
    expected = explainers[name](photograph)
    pullback = expected.pullback.reshape(1, *expected.pullback.shape[-3:])
    np.testing.assert_allclose(answer["logits"], expected.logits[0], atol=1e-5)
    np.testing.assert_allclose(answer["pullback"], pullback, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], expected.probabilities[0], atol=1e-6)
    assert answer["targets"].tolist() == expected.targets.reshape(-1).tolist()


def test_json_holds_an_image_in_base64(client, explainers, photograph, png):
    body = {"image": base64.b64encode(png).decode(), "targets": [2, "espresso"], "top_k": 3}
    answer = client.post("/v1/models/tiny:explain", json=body).json()
    expected = explainers["tiny"]([photograph, photograph], [2, "espresso"])
    np.testing.assert_allclose(array(answer["pullback"]), expected.pullback, atol=1e-6)
    np.testing.assert_allclose(array(answer["logits"]), expected.logits[0], atol=1e-6)
    named = [(row["name"], row["probability"]) for row in answer["predictions"]]
    assert [name for name, _ in named] == [name for name, _ in expected.labels(3)[0]]
    assert [p for _, p in named] == pytest.approx([p for _, p in expected.labels(3)[0]], abs=1e-6)
    assert [row["index"] for row in answer["targets"]] == [2, 4]
    assert answer["targets"][1]["logit"] == pytest.approx(float(expected.logits[0, 4]))
    assert answer["model"] == "tiny"
    assert answer["method"] == "gradient, temperature 0.5"


@pytest.mark.parametrize("name", ["tiny", "multi"])
def test_several_targets_are_several_pullbacks(client, explainers, photograph, png, name):
    asked = {"targets": ["-1", "-2", "tabby cat"], "output": "npz"}
    answer = arrays(client.post(f"/v1/models/{name}:explain", files={"image": png}, data=asked))
    expected = explainers["tiny"]([photograph] * 3, [-1, -2, "tabby cat"])
    np.testing.assert_allclose(answer["pullback"], expected.pullback, atol=1e-6)
    assert answer["targets"].tolist() == expected.targets.tolist()
    assert answer["logits"].shape == (5,)


@pytest.mark.parametrize("name", ["tiny", "multi"])
def test_each_target_has_its_convergence_delta(explainers, photograph, x, name):
    """Whether its three targets were three rows or one."""
    wanted = [[0, 1, 2]] if name == "multi" else [0, 1, 2]
    batch = np.stack([x] * len(wanted))
    made = explainers[name](batch, wanted)
    delta = np.float32([0.1, 0.2, 0.3])
    told = {"convergence_delta": delta.reshape(np.shape(wanted))}
    made = replace(made, outputs={**made.outputs, **told})
    work = Work(batch, made.targets, None, {})
    for output in ("json", "npz"):
        asked = Prepared(work, Options(output=output), photograph)
        answer = render(name, explainers[name], asked, made)
        if output == "json":
            found = array(json.loads(answer)["convergence_delta"])
        else:
            found = np.load(io.BytesIO(answer))["convergence_delta"]
        assert found.tolist() == delta.tolist()
    gathered = gather(asked, made)
    assert gathered.outputs["convergence_delta"].tolist() == [delta.tolist()]


def test_a_raw_tensor_is_the_networks_input_and_has_its_options_in_the_url(client, explainers, x):
    response = client.post(
        "/v1/models/tiny:explain?targets=3&targets=-2&output=npz",
        content=x.astype("<f4").tobytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    expected = explainers["tiny"](np.stack([x, x]), [3, -2])
    np.testing.assert_allclose(arrays(response)["pullback"], expected.pullback, atol=1e-6)


def test_options_in_the_url_hold_where_the_body_says_nothing(client, png):
    url = "/v1/models/tiny:explain?top_k=2&targets=1"
    both = client.post(url, files={"image": png}, data={"targets": "3"}).json()
    assert len(both["predictions"]) == 2
    assert [target["index"] for target in both["targets"]] == [3]
    coded = client.post(url, json={"image": base64.b64encode(png).decode(), "top_k": 4}).json()
    assert len(coded["predictions"]) == 4
    assert [target["index"] for target in coded["targets"]] == [1]


def test_a_raw_tensor_has_the_networks_own_layout(client, explainers, x):
    channels_last = np.moveaxis(x, 0, -1)
    response = client.post(
        "/v1/models/nhwc:explain?output=npz",
        content=np.ascontiguousarray(channels_last).tobytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    expected = explainers["nhwc"](channels_last)
    np.testing.assert_allclose(arrays(response)["pullback"], expected.pullback, atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_json_holds_a_tensor(client, explainers, photograph, x, kind):
    given = x if kind == "float32" else photograph
    body = {"tensor": Tensor.of(given), "output": "npz"}
    answer = arrays(client.post("/v1/models/tiny:explain", json=body))
    expected = explainers["tiny"](given)
    np.testing.assert_allclose(answer["pullback"], expected.pullback, atol=1e-6)


def test_a_live_temperature_is_the_requests(client, explainers, photograph, png):
    cold, warm = (
        arrays(
            client.post(
                "/v1/models/live:explain",
                files={"image": png},
                data={"output": "npz", "temperature": temperature},
            )
        )["pullback"]
        for temperature in (0.25, 2)
    )
    expected = explainers["live"](photograph, temperature=2)
    np.testing.assert_allclose(warm, expected.pullback, atol=1e-6)
    np.testing.assert_allclose(cold, 8 * warm, atol=1e-5)


def test_a_picture_is_the_runtimes_overlay(client, explainers, photograph, png, tmp_path):
    response = client.post(
        "/v1/models/tiny:explain", files={"image": png}, data={"targets": "1", "output": "png"}
    )
    assert response.headers["content-type"] == "image/png"
    explainers["tiny"](photograph, 1).save(tmp_path / "expected.png", style="overlay")
    expected = np.asarray(Image.open(tmp_path / "expected.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(response.content))), expected)


def test_a_picture_is_drawn_as_asked(client, explainers, photograph, png):
    options = {"style": "heatmap", "colours": "viridis", "percentile": "90", "colour_bar": "true"}
    asked = {"targets": "1", "output": "png", **options}
    response = client.post("/v1/models/tiny:explain", files={"image": png}, data=asked)
    drawn = explainers["tiny"](photograph, 1).draw(
        "heatmap", colours="viridis", percentile=90, colour_bar=True
    )
    np.testing.assert_array_equal(Image.open(io.BytesIO(response.content)), drawn)


def test_a_picture_that_cannot_be(client, png):
    asked = {"output": "png", "style": "signed", "colours": "inferno"}
    response = client.post("/v1/models/tiny:explain", files={"image": png}, data=asked)
    assert response.status_code == 422
    assert "has signs, which inferno does not show" in response.json()["error"]


def test_orientation_in_exif_is_applied(client, explainers, photograph):
    turned = Image.fromarray(photograph)
    exif = turned.getexif()
    exif[0x0112] = 3  # rotated by 180°
    encoded = io.BytesIO()
    turned.save(encoded, "PNG", exif=exif)
    answer = arrays(
        client.post(
            "/v1/models/tiny:explain",
            files={"image": encoded.getvalue()},
            data={"output": "npz", "targets": "0"},
        )
    )
    expected = explainers["tiny"](np.ascontiguousarray(photograph[::-1, ::-1]), 0)
    np.testing.assert_allclose(answer["pullback"], expected.pullback, atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF", "TIFF", "PNG"])
def test_usual_formats_are_read(client, photograph, kind):
    encoded = io.BytesIO()
    Image.fromarray(photograph).save(encoded, kind)
    response = client.post("/v1/models/tiny:explain", files={"image": encoded.getvalue()})
    assert response.status_code == 200, response.text


def test_the_list_says_what_each_model_expects(client, graphs):
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert models.keys() == graphs.keys()
    assert models["tiny"]["input"] == [3, 6, 8]
    assert models["nhwc"]["input"] == [6, 8, 3]
    assert models["tiny"]["mean"] == [0.5, 0.4, 0.3]
    assert models["tiny"]["labels"][4] == "espresso"
    assert models["tiny"]["loaded"] is False


def test_a_request_keeps_its_id(client):
    assert client.get("/health", headers={"X-Request-ID": "abc"}).headers["x-request-id"] == "abc"
    assert len(client.get("/health").headers["x-request-id"]) == 32
