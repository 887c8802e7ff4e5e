"""The process: what it says, what it listens to, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.serve.connections import listen
from onnxplain.serve.server import _accept_all, allow_files

from .process import PATIENCE, everything, started

EXPLAIN = "/v1/models/tiny:explain"


def command(*statements: str) -> list[str]:
    """`onnxplain serve` after these, in `onnxplain.serve`."""
    given = ["from onnxplain.serve import connections, server", *statements]
    return [sys.executable, "-c", "; ".join([*given, "import onnxplain.cli.__main__"]), "serve"]


def test_sigterm_loses_no_request_that_was_accepted(graphs, png):
    """Clients ask on and on, on kept connections; each stops when nobody listens any more.

    Two things are no loss, and a client that is not given the processor for a while meets them. A
    kept connection may be closed at any time, and a client then asks on another (RFC 9112, 9.3.1).
    A connection is made by the system before the service has it, and is reset where nobody took it.
    """
    with started([graphs["tiny"]], command=command(f"connections._FIRST = {PATIENCE}")) as process:
        answers, broken = [], []
        told = threading.Event()

        def ask() -> None:
            events: list[str] = []
            seen = {"trace": lambda event, details: events.append(event)}
            with httpx.Client(timeout=PATIENCE) as client:
                while True:
                    events.clear()
                    try:
                        response = client.post(
                            process.url + EXPLAIN, files={"image": png}, extensions=seen
                        )
                    except httpx.ConnectError:
                        return
                    except httpx.TransportError as error:
                        if "connection.connect_tcp.started" not in events:
                            continue
                        # After a write that fails httpcore still looks for an answer.
                        unsent = {f"http11.send_request_{p}.failed" for p in ("headers", "body")}
                        if not isinstance(error, httpx.NetworkError) and unsent.isdisjoint(events):
                            broken.append(repr(error))
                        return
                    answers.append((told.is_set(), response.status_code))

        with ThreadPoolExecutor(8) as clients:
            for _ in range(8):
                clients.submit(ask)
            time.sleep(1)
            process.running.send_signal(signal.SIGTERM)
            told.set()
        assert process.running.wait(PATIENCE) == 0
        assert broken == []
        assert {status for _, status in answers} == {200}
        assert any(after for after, _ in answers)  # what came before others noticed is answered
        logged = [entry["status"] for entry in process.entries("request")]
        assert len(logged) == len(answers)
        assert process.entries("ended")


def test_a_request_that_comes_long_after_sigterm_is_answered_on_its_connection(graphs):
    """One whose head has begun, and the first of a connection; not one more on a kept one."""
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        started([graphs["tiny"]], command=command(f"connections._FIRST = {PATIENCE}")) as process,
        process.connect() as new,
        process.connect() as begun,
        process.connect() as kept,
        process.connect() as silent,
    ):
        begun.sendall(health[:20])
        kept.sendall(health)
        while not kept.recv(65536).endswith(b"}"):
            pass
        process.running.send_signal(signal.SIGTERM)
        assert everything(kept) == b""  # it is closed after a moment
        with pytest.raises(ConnectionRefusedError):
            process.connect()
        time.sleep(1)
        new.sendall(health)
        begun.sendall(health[20:])
        for connection in (new, begun):
            answer = everything(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        assert process.running.poll() is None
        silent.close()
        assert process.running.wait(PATIENCE) == 0


def test_a_connection_that_says_nothing_does_not_hold_up_the_end(graphs):
    with (
        started(
            [graphs["tiny"]], command=command("server._NOTICE = 0", "connections._FIRST = 0.5")
        ) as process,
        process.connect() as silent,
    ):
        process.running.send_signal(signal.SIGTERM)
        assert silent.recv(65536) == b""
        assert process.running.wait(PATIENCE) == 0


def test_connections_that_only_the_system_has_made_are_taken():
    with listen("127.0.0.1", 0) as listener, ExitStack() as opened:
        listener.setblocking(False)
        made = [
            opened.enter_context(socket.create_connection(listener.getsockname())) for _ in "123"
        ]
        taken = [opened.enter_context(connection) for connection in _accept_all(listener)]
        assert [c.getpeername() for c in taken] == [c.getsockname() for c in made]


def test_it_says_that_it_ends_while_it_still_answers(graphs):
    with (
        started([graphs["tiny"]], command=command("server._NOTICE = 3")) as process,
        httpx.Client(base_url=process.url) as client,
    ):
        assert client.get("/ready").status_code == 200
        process.running.send_signal(signal.SIGTERM)
        while client.get("/ready").status_code == 200:
            time.sleep(0.02)
        response = client.get("/health")
        assert response.json() == {"status": "draining"}
        assert response.headers["connection"] == "close"
        assert client.get("/v2/health/ready").status_code == 503
        assert process.running.wait(PATIENCE) == 0


def test_ctrl_c_is_an_interruption(graphs):
    with started([graphs["tiny"]]) as process:
        process.running.send_signal(signal.SIGINT)
        assert process.running.wait(PATIENCE) == 130


def test_it_listens_to_this_machine_alone_unless_told_otherwise(process):
    assert process.entries("listening")[0]["url"].startswith("http://127.0.0.1:")


def test_the_log_has_a_line_for_each_request_and_nothing_of_its_image(process, png):
    fields = {"targets": "espresso"}
    response = httpx.post(
        process.url + EXPLAIN,
        files={"image": ("my-holiday.png", png)},
        data=fields,
        headers={"X-Request-ID": "of-this-test"},
    )
    assert response.status_code == 200
    line = process.entry("request", id="of-this-test")
    assert line.keys() == {
        *("time", "level", "event", "id", "client", "method", "path", "status"),
        *("milliseconds", "bytes"),
    }
    assert line["status"] == 200
    assert line["bytes"] == len(response.content)
    text = process.log.read_text()
    for secret in ("my-holiday", "espresso", json.dumps(response.json()["logits"]["data"])[:20]):
        assert secret not in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate's file and its key's."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    subprocess.run([*new, *name, *files], check=True, capture_output=True)
    return certificate, key


def test_a_handshake_that_comes_long_after_sigterm_is_still_made(graphs, certificate):
    """Of a connection that was accepted, of which asyncio tells the service after that."""
    file, key = certificate
    first = command("server._NOTICE = 0", f"connections._FIRST = {PATIENCE}")
    options = ["--certificate", str(file), "--key", str(key)]
    with (
        started([graphs["tiny"]], *options, command=first) as process,
        process.connect() as new,
    ):
        time.sleep(0.5)
        process.running.send_signal(signal.SIGTERM)
        time.sleep(1)
        trusted = ssl.create_default_context(cafile=file)
        with trusted.wrap_socket(new, server_hostname="127.0.0.1") as secure:
            secure.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert everything(secure).startswith(b"HTTP/1.1 200 ")
        assert process.running.wait(PATIENCE) == 0


def test_a_handshake_that_does_not_come_does_not_hold_up_the_end(graphs, certificate):
    file, key = certificate
    first = command("server._NOTICE = 0", "connections._FIRST = 0.5")
    options = ["--certificate", str(file), "--key", str(key)]
    with started([graphs["tiny"]], *options, command=first) as process, process.connect():
        process.running.send_signal(signal.SIGTERM)
        assert process.running.wait(20) == 0  # before asyncio gives it up


def test_it_speaks_tls(graphs, certificate):
    file, key = certificate
    with started([graphs["tiny"]], "--certificate", str(file), "--key", str(key)) as process:
        assert process.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=file)
        assert httpx.get(f"{process.url}/ready", verify=trusted).json() == {"status": "ok"}
        with pytest.raises(httpx.TransportError):
            httpx.get(process.url.replace("https", "http") + "/ready")
        assert httpx.get(f"{process.url}/ready", verify=trusted).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
def test_it_lets_itself_have_as_many_files_as_connections():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        allow_files(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nothing.explain.onnx"], 5, "no such file"),
        (["a={tiny}", "a={multi}"], 4, "two models are called 'a'"),
        (["a/b={tiny}"], 4, "cannot be in a URL"),
        (["{tiny}", "--host", "256.0.0.1"], 4, "cannot listen"),
        (["{tiny}", "--key", "key.pem"], 4, "--certificate"),
        (["{tiny}", "--certificate", "{tiny}"], 4, "certificate"),
        (["{tiny}", "--site", ".", "--token", "secret"], 4, "--site"),
        (["{tiny}", "--log-level", "loud"], 4, "--log-level"),
        (["{tiny}", "--precision", "auto"], 4, "name a precision"),
        (["{tiny}", "--batch", "0"], 2, "--batch"),
    ],
)
def test_what_cannot_be_served_is_a_sentence_and_an_exit_status(graphs, arguments, status, words):
    names = {name: str(path) for name, path in graphs.items()}
    command = ["serve", *(argument.format(**names) for argument in arguments), "--port", "0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == status, done.output
    assert words in " ".join(done.output.split())
