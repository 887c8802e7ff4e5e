"""Strangers' pages ask nothing of a service on the visitor's own machine."""

from __future__ import annotations

import pytest

from onnxplain.errors import InputError
from onnxplain.serve.connections import listen
from onnxplain.serve.names import LOOPBACK, hosts_of
from onnxplain.serve.origin import is_among
from onnxplain.serve.server import warn_if_open
from onnxplain.serve.settings import Settings

EXPLAIN = "/v1/models/tiny:explain"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil@x", "", "[::1"])
def test_another_name_is_refused(serve, png, host: str) -> None:
    """A stranger's name may lead here: DNS rebinding."""
    client = serve(hosts=LOOPBACK)
    answer = client.post(EXPLAIN, files={"image": png}, headers={"Host": host})
    assert answer.status_code == 421
    assert client.get("/v1/models", headers={"Host": host}).status_code == 421
    assert 'refused_total{reason="foreign"} 2' in client.get(
        "/metrics", headers={"Host": "localhost"}
    ).text.replace("onnxplain_", "")


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:80"])
def test_this_machines_are_not(serve, png, host: str) -> None:
    client = serve(hosts=LOOPBACK)
    assert client.post(EXPLAIN, files={"image": png}, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://testserver.evil.example"},
    ],
)
def test_another_sites_form_is_refused(serve, png, headers: dict[str, str]) -> None:
    client = serve()
    assert client.post(EXPLAIN, files={"image": png}, headers=headers).status_code == 403
    assert client.post("/v2/repository/index", headers=headers).status_code == 403
    assert client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_its_own_page_and_programs_are_not(serve, png, headers: dict[str, str]) -> None:
    assert serve().post(EXPLAIN, files={"image": png}, headers=headers).status_code == 200


def test_with_a_token_the_token_decides(serve, png) -> None:
    headers = {"Origin": "https://app.example", "Authorization": "Bearer secret"}
    client = serve(token="secret")
    assert client.post(EXPLAIN, files={"image": png}, headers=headers).status_code == 200


def test_without_the_token_no_models_are_named(serve) -> None:
    text = serve(token="secret").get("/openapi.json").text
    assert "tiny" not in text
    assert "tiny" in serve().get("/openapi.json").text


@pytest.mark.parametrize(
    ("address", "token", "named", "hosts"),
    [
        ("127.0.0.1", None, (), LOOPBACK),
        ("localhost", None, (), LOOPBACK),
        ("LOCALHOST", None, (), LOOPBACK),
        ("::1", None, (), LOOPBACK),
        ("0:0:0:0:0:0:0:1", None, (), LOOPBACK),
        ("127.1", None, (), LOOPBACK | {"127.1"}),
        ("127.0.0.2", None, (), LOOPBACK | {"127.0.0.2"}),
        ("127.0.0.1", "secret", (), None),
        ("0.0.0.0", None, (), None),
        ("0.0.0.0", None, ("A.example",), LOOPBACK | {"0.0.0.0", "a.example"}),
    ],
)
def test_which_names_a_service_has(address, token, named, hosts) -> None:
    assert hosts_of(address, token, named) == hosts


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("example.org:8000", "example.org"),
        ("Example.ORG.", "example.org:80"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("FD00:0::1", "[fd00::1]:8000"),
        ("[fd00::1]:80", "[fd00::1]"),
    ],
)
def test_a_name_is_known_however_it_is_written(given: str, asked: str) -> None:
    assert is_among(asked, hosts_of("0.0.0.0", None, [given]))


@pytest.mark.parametrize(
    "given", ["http://example.org", "*.example.org", "", ":80", "a b", "[::1", "a@b", "a..b", "a/b"]
)
def test_what_could_never_be_asked_for_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="takes a name such as"):
        hosts_of("0.0.0.0", "secret", [given])


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="cannot listen on"):
        hosts_of("a" * 70, None, ())


@pytest.mark.parametrize("token", ["", "pässwort", "two\nlines", " before"])
def test_a_token_that_no_client_can_send_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        Settings({}, token=token)


@pytest.mark.parametrize(
    ("host", "token", "warnings"),
    [("0.0.0.0", None, 1), ("0.0.0.0", "secret", 0), ("127.0.0.1", None, 0)],
)
def test_an_open_service_is_warned_of(caplog, host, token, warnings) -> None:
    with listen(host, 0) as listener:
        warn_if_open(listener, token)
    assert [record.message for record in caplog.records] == ["open to everybody"] * warnings
