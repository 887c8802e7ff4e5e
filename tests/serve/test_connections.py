"""Clients that are slow, rude or broken, on real connections."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from onnxplain.serve.connections import Connection

from .process import PATIENCE, Process, everything, started

HEAD = (
    b"POST /v1/models/tiny:explain HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\n"
)


@pytest.fixture(scope="module")
def impatient(graphs: dict[str, Path]) -> Iterator[Process]:
    """A service that waits a second for its clients."""
    with started([graphs["tiny"]], "--read-seconds", "1") as process:
        yield process


def drip(connection: socket.socket, data: bytes, pause: float) -> None:
    """Sends it again and again, until the other side has closed or the test has waited enough."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection.sendall(data)
        time.sleep(pause)


def test_a_head_that_never_ends_is_cut(impatient: Process):
    with impatient.connect() as connection:
        begin = time.monotonic()
        connection.sendall(b"POST /v1/mod")
        assert everything(connection) == b""
        assert time.monotonic() - begin < PATIENCE / 2
    assert impatient.healthy()


def test_a_head_that_drips_is_cut(impatient: Process):
    with impatient.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            drip(connection, b"X-A: b\r\n", 0.1)
    assert impatient.healthy()


def test_a_connection_that_says_nothing_is_cut(impatient: Process):
    with impatient.connect() as connection:
        assert everything(connection) == b""


@pytest.mark.parametrize("size", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_never_ends_is_a_408(impatient: Process, size: bytes):
    with impatient.connect() as connection:
        connection.sendall(HEAD + size + b"\r\n\r\n")
        connection.sendall(b'9\r\n{"image":\r\n' if b"chunked" in size else b'{"image":')
        assert everything(connection).startswith(b"HTTP/1.1 408 ")
    assert impatient.healthy()


def test_a_body_that_drips_after_its_refusal_is_cut(impatient: Process):
    with impatient.connect() as connection:
        connection.sendall(
            b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        with pytest.raises(ConnectionError):
            drip(connection, b"0" * 100, 0.1)
    assert impatient.healthy()


@pytest.mark.parametrize("sent", [HEAD, HEAD + b"Content-Length: 9\r\n\r\n{", b"", b"GET"])
def test_a_half_closed_request_is_cut(impatient: Process, sent: bytes):
    with impatient.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert impatient.healthy()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nnonsense\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_cut(impatient: Process, sent: bytes):
    with impatient.connect() as connection:
        try:
            connection.sendall(sent)
            answer = everything(connection)
        except ConnectionError:
            answer = b""
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 307"))
    assert impatient.healthy()


def test_an_upgrade_to_a_websocket_is_not_taken(process: Process):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert httpx.get(f"{process.url}/health", headers=headers).status_code == 200


def test_requests_behind_each_other_are_answered_in_turn(process: Process):
    with process.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
        received = b""
        while received.count(b'{"status":"ok"}') < 5:
            received += connection.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 5


def test_a_client_that_does_not_take_its_answer_is_cut(impatient: Process):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        host, port = impatient.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with pytest.raises(ConnectionError):
            drip(connection, request * 100, 0.002)
    assert impatient.healthy()


class Slow(asyncio.Transport):
    """To a client that takes its answer step by step, and at last nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.left = [100, 90, 90, 80, 80, 80]  # when writing is paused; and twice in each period
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.left.pop(0)

    def abort(self) -> None:
        self.aborted.set()


def test_a_client_is_cut_when_it_takes_nothing_not_when_it_is_slow():
    async def main() -> None:
        connection = Connection(
            most=1,
            seconds=0.01,
            cut=lambda reason: None,
            config=uvicorn.Config(lambda: None, log_config=None),
            server_state=ServerState(),
            app_state={},
        )
        connection.transport = transport = Slow()
        connection.flow = FlowControl(transport)
        connection.pause_writing()
        async with asyncio.timeout(PATIENCE):
            await transport.aborted.wait()
        assert transport.left == []

    asyncio.run(main())


def test_a_large_upload_that_is_refused_gets_its_answer(process: Process):
    body = b"0" * (20 << 20)
    response = httpx.post(f"{process.url}/v1/models/tiny:explain", content=body, timeout=PATIENCE)
    assert response.status_code == 413
    assert process.healthy()


class Open(asyncio.Transport):
    """Of a client that takes what it is sent, but for `left` bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.left, self.open = b"", 0, True

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return not self.open

    def close(self) -> None:
        self.open = False

    def abort(self) -> None:
        self.open = False


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads what is asked, and answers with nothing."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class TestRoomForThree:
    """What becomes of connections where there is room for three."""

    def opened(self, *sent: bytes, left: int = 0, then: int = 1) -> tuple[list[bool], list[str]]:
        """Which stay open of connections that send that, when `then` others come; and the cuts."""

        async def main() -> tuple[list[bool], list[str]]:
            cuts: list[str] = []
            state = ServerState()
            config = uvicorn.Config(nothing, log_config=None)
            transports = [Open() for _ in range(len(sent) + then)]
            for transport, data in zip(transports, [*sent, *[b""] * then], strict=True):
                connection = Connection(
                    3, 10, cuts.append, config=config, server_state=state, app_state={}
                )
                connection.connection_made(transport)
                connection.data_received(data) if data else None
                for _ in range(5):
                    await asyncio.sleep(0)
                transport.left = left
            return [transport.open for transport in transports], cuts

        return asyncio.run(main())

    def test_the_one_that_has_been_idle_longest_goes(self):
        """A client that keeps all open with a request each shuts nobody out."""
        assert self.opened(GET, GET, GET) == ([False, True, True, True], ["idle"])

    def test_so_do_those_that_say_nothing(self):
        part_of_a_head = GET[:20]
        opened = self.opened(b"", part_of_a_head, GET, then=3)
        assert opened == ([False] * 3 + [True] * 3, ["idle"] * 3)

    def test_one_whose_request_is_on_its_way_stays(self):
        asking = HEAD + b"Content-Length: 9\r\n\r\n{"
        assert self.opened(asking, GET, asking) == ([True, False, True, True], ["idle"])
        assert self.opened(asking, asking, asking) == ([True, True, True, False], ["many"])

    def test_so_does_one_that_still_takes_its_answer(self):
        assert self.opened(GET, GET, GET, left=1) == ([True, True, True, False], ["many"])


def test_more_connections_than_there_is_room_for_are_told_to_come_back(process: Process):
    """Where all 40 are asking: their bodies are waited for."""
    asking = HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(process.connect())
            connection.sendall(asking)
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        for _ in range(20):
            with process.connect() as connection:
                assert everything(connection).startswith(b"HTTP/1.1 503 ")
    until_there_is_room(process)


def until_there_is_room(process: Process) -> None:
    """Until the service, too, knows that connections are closed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(httpx.TransportError):  # where it is cut before it has asked
            if process.healthy():
                return
        time.sleep(0.05)
    raise AssertionError("it is still full")


def test_clients_that_go_before_their_answer_do_no_harm(process: Process, png: bytes):
    def rude() -> None:
        form = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n'
            + png
            + b"\r\n--b--\r\n"
        )
        head = (
            b"POST /v1/models/tiny:explain HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: " + str(len(form)).encode() + b"\r\n\r\n"
        )
        with process.connect() as connection:
            connection.sendall(head + form)

    threads = [threading.Thread(target=rude) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    response = httpx.post(f"{process.url}/v1/models/tiny:explain", files={"image": png})
    assert response.status_code == 200
    assert process.healthy()
