"""What is refused, with which status, and that the service lives on."""

from __future__ import annotations

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from onnxplain.serve import decode
from onnxplain.serve.schemas import Options, Tensor
from onnxplain.serve.settings import Limits, Running

EXPLAIN = "/v1/models/tiny:explain"
FORM = "multipart/form-data; boundary=b"
JSON = "application/json"
RAW = "application/octet-stream"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def file(content: bytes, name: bytes = b"image") -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name + b'"; filename="f"\r\n\r\n'
    return disposition + content


def field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 415),
        ("", b"hello", 415),
        (JSON, b"", 400),
        (JSON, b"{", 400),
        (JSON, b"[" * 100_000, 400),
        (JSON, b"{}", 400),
        (JSON, b'{"image": "not base64!"}', 400),
        (JSON, b'{"image": "AAAA", "more": 1}', 400),
        (JSON, b'{"image": "AAAA"}', 422),
        (JSON, b'{"image": null}', 400),
        (JSON, b'{"image": "AAAA", "tensor": {"shape": [1], "data": "AAAA"}}', 400),
        (JSON, b'{"tensor": {"shape": [3, 6, 8], "data": "AAAA"}}', 422),
        (JSON, b'{"tensor": {"shape": [1], "data": "AAAAAA=="}}', 422),
        (JSON, b'{"tensor": {"shape": [2147483648, 2147483648], "data": ""}}', 422),
        (JSON, b'{"tensor": {"shape": [0, 2147483648, 2147483648], "data": ""}}', 400),
        (JSON, b'{"tensor": {"shape": [1], "dtype": "int64", "data": "AAAAAAAAAAA="}}', 422),
        (JSON, b'{"image": "AAAA", "targets": []}', 400),
        (JSON, b'{"image": "AAAA", "targets": [true]}', 400),
        (JSON, b'{"image": "AAAA", "temperature": -1}', 400),
        (JSON, b'{"image": "AAAA", "temperature": NaN}', 400),
        (JSON, b'{"image": "AAAA", "output": "gif"}', 400),
        (JSON, b'{"image": "AAAA", "top_k": "5"}', 400),
        (JSON, b"\xff\xfe", 400),
        (RAW, b"", 422),
        (RAW, b"0" * 575, 422),
        (RAW, np.full(144, np.nan, np.float32).tobytes(), 422),
        (RAW, np.full(144, 3e38, np.float32).tobytes(), 422),
        (FORM, b"", 400),
        (FORM, b"no boundary", 400),
        ("multipart/form-data", form(file(b"x")), 400),
        (FORM, form(field(b"targets", b"1")), 400),
        (FORM, form(file(b"this is no image")), 422),
        (FORM, form(file(b"")), 422),
        (FORM, form(file(b"x", b"other")), 400),
        (FORM, form(file(b"x"), file(b"x")), 400),
        (FORM, form(file(b"x"), field(b"targets", b"9" * 2000)), 400),
        (FORM, form(*[field(b"targets", b"1")] * 100), 400),
        (FORM, form(field(b"output", b"png"), field(b"output", b"png"), file(b"x")), 400),
        (FORM, form(field(b"\xff", b"1"), file(b"x")), 400),
        (FORM, form(field(b"unknown", b"1"), file(b"x")), 400),
        (FORM, form(file(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")), 422),
    ],
)
def test_a_malformed_request_is_refused_with_a_sentence(client, content_type, body, status):
    response = client.post(EXPLAIN, content=body, headers={"Content-Type": content_type})
    assert response.status_code == status, response.text
    assert response.json()["error"]
    assert client.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"targets": "99"}, 422, "out of range"),
        ({"targets": "zebra"}, 422, "unknown"),
        ({"targets": "crane"}, 422, "ambiguous"),
        ({"targets": "9" * 30}, 422, "unknown"),
        ({"temperature": "0.5"}, 422, "live_temperature=True"),
        ({"top_k": "0"}, 400, "top_k"),
        ({"targets": ["-1"] * 17}, 413, "16 targets"),
    ],
)
def test_an_option_that_no_model_can_meet_says_why(client, png, options, status, words):
    response = client.post(EXPLAIN, files={"image": png}, data=options)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_request_has_one_image(client, dtype):
    several = Tensor.of(np.zeros((2, 3, 6, 8) if dtype == np.float32 else (2, 6, 8, 3), dtype))
    response = client.post(EXPLAIN, json={"tensor": several})
    assert response.status_code == 422
    assert "one image" in response.json()["error"]


@pytest.mark.parametrize("query", ["top_k=0", "other=1", "top_k=1&top_k=1", "output=", "targets="])
def test_options_in_the_url_are_checked_whatever_the_body(client, png, query):
    assert client.post(f"{EXPLAIN}?{query}", files={"image": png}).status_code == 400


def test_there_is_no_other_model(client, png):
    response = client.post("/v1/models/other:explain", files={"image": png})
    assert response.status_code == 404
    assert "tiny" in response.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", EXPLAIN), ("DELETE", "/v1/models")])
def test_another_method_is_named_as_such(client, method, path):
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"]
    assert response.json()["error"].startswith("Method Not Allowed: /docs lists")


def test_who_asks_at_another_path_is_told_where_the_paths_are(client, png):
    response = client.post("/v1/models/tiny/explain", files={"image": png})
    assert response.status_code == 404
    assert response.json()["error"].startswith("Not Found: /docs lists what can be asked")


def test_a_file_s_name_in_place_of_the_file_is_told_how_it_is_sent(client):
    response = client.post(EXPLAIN, files={"image": (None, "cat.jpg")})
    assert response.status_code == 400
    assert "-F image=@cat.jpg" in response.json()["error"]


def test_a_large_body_is_refused_whether_it_says_so_or_not(serve):
    client = serve(limits=Limits(body_bytes=1000))
    declared = client.post(EXPLAIN, content=b"0" * 2000, headers={"Content-Type": RAW})
    chunked = client.post(EXPLAIN, content=iter([b"0" * 600] * 4), headers={"Content-Type": RAW})
    assert declared.status_code == chunked.status_code == 413
    assert "1000 bytes" in declared.json()["error"]


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(serve):
    client = serve(limits=Limits(pixels=10_000))
    encoded = io.BytesIO()
    Image.new("L", (200, 100)).save(encoded, "PNG")
    assert client.post(EXPLAIN, files={"image": encoded.getvalue()}).status_code == 413
    pixels = {"shape": [200, 100, 3], "dtype": "uint8"}
    pixels["data"] = base64.b64encode(bytes(60_000)).decode()
    assert client.post(EXPLAIN, json={"tensor": pixels}).status_code == 413


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_an_image_that_would_be_too_large_when_resized_is_refused(serve, size):
    client = serve(limits=Limits(pixels=10_000))
    encoded = io.BytesIO()
    Image.new("L", size).save(encoded, "PNG")
    pixels = Tensor.of(np.zeros((*size, 3), np.uint8))
    for response in (
        client.post(EXPLAIN, files={"image": encoded.getvalue()}),
        client.post(EXPLAIN, json={"tensor": pixels}),
    ):
        assert response.status_code == 413, response.text
        assert "resized" in response.json()["error"]


@pytest.mark.parametrize(("style", "drawn"), [("overlay", 3), ("grid", 7)])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_drawn(
    serve, png, photograph, style, drawn
):
    height, width = photograph.shape[:2]
    pixels = drawn * 1500 * round(1500 * height / width)
    asked = {"output": "png", "targets": ["0", "1", "2"], "style": style, "longest": "1500"}
    for most, status in ((pixels - 1, 413), (pixels, 200)):
        client = serve(limits=Limits(pixels=most))
        enlarged = Image.fromarray(photograph).resize((width * 80, height * 80))
        encoded = io.BytesIO()
        enlarged.save(encoded, "PNG")
        response = client.post(EXPLAIN, files={"image": encoded.getvalue()}, data=asked)
        assert response.status_code == status, response.text
    assert client.post(EXPLAIN, files={"image": png}, data=asked | {"output": "json"}).is_success


@pytest.mark.parametrize("coded", [True, False])
def test_a_photograph_that_is_kept_for_its_picture_is_counted(explainers, png, photograph, coded):
    source = png if coded else photograph
    kept = {
        output: decode.prepare(
            decode.Asked(source, Options(targets=[0, 1], output=output)),
            explainers["tiny"], Limits(),
        ).held_bytes
        for output in ("json", "png")
    }  # fmt: skip
    seen = 6 * 8 * 3
    assert kept["json"] == 4 * seen + seen
    of_pixel = 4 if coded else 3
    assert kept["png"] - kept["json"] == of_pixel * photograph.size // 3


def test_targets_share_their_image_while_they_wait(explainers, png):
    asked = decode.prepare(
        decode.Asked(png, Options(targets=list(range(5)))), explainers["tiny"], Limits()
    )
    assert asked.work.batch.shape == (5, 3, 6, 8)
    assert asked.work.batch.strides[0] == 0


def test_a_decompression_bomb_is_refused_by_its_head(client):
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    size = (100_000).to_bytes(4, "big") * 2
    head = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000)))
    response = client.post(EXPLAIN, files={"image": bomb})
    assert response.status_code == 413, response.text


def test_a_content_encoding_is_refused(client, png):
    response = client.post(EXPLAIN, content=png, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


def test_only_who_has_the_token_may_ask(serve, png):
    client = serve(token="secret")
    denied = client.post(EXPLAIN, files={"image": png})
    assert denied.status_code == 401
    assert denied.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer other", "Basic secret", "secret", "Bearer s\u00e9cret"):
        headers = {"Authorization": wrong.encode()}
        assert client.get("/v1/models", headers=headers).status_code == 401
    right = {"Authorization": "Bearer secret"}
    assert client.post(EXPLAIN, files={"image": png}, headers=right).status_code == 200
    for path in ("/metrics", "/v2", "/v2/models/tiny", "/v2/models/tiny/ready"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=right).status_code == 200
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_service(serve, graphs, tmp_path, png):
    broken = tmp_path / "broken.explain.onnx"
    broken.write_bytes(graphs["tiny"].read_bytes())
    client = serve(models={"tiny": broken}, running=Running("cpu"))
    broken.unlink()
    response = client.post(EXPLAIN, files={"image": png})
    assert response.status_code == 500
    assert "no such file" in response.json()["error"]
    assert client.get("/ready").status_code == 200


def test_an_error_nobody_thought_of_is_hidden_from_the_client(serve, png, monkeypatch):
    client = serve()
    client._transport.raise_server_exceptions = False
    monkeypatch.setattr(client.service.pool, "run", lambda *_: 1 / 0)
    response = client.post(EXPLAIN, files={"image": png})
    assert response.status_code == 500
    assert "division" not in json.dumps(response.json())
