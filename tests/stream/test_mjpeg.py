"""What a browser gets."""

from __future__ import annotations

import http.client
import io
import socket
import threading

import pytest
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.stream import mjpeg
from onnxplain.stream.mjpeg import MotionJpeg

FRAME = None  # the server looks at the picture alone


@pytest.fixture
def server():
    with MotionJpeg(0) as server:
        yield server


def connect(server: MotionJpeg, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=10)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def read_frame(response: http.client.HTTPResponse) -> Image.Image:
    assert response.readline() == b"--frame\r\n"
    headers = http.client.parse_headers(response)
    assert headers["Content-Type"] == "image/jpeg"
    image = Image.open(io.BytesIO(response.read(int(headers["Content-Length"]))))
    assert response.readline() == b"\r\n"
    return image


class Showing:
    """Shows pictures of width 1, 2, 3, … until it is left."""

    def __init__(self, server: MotionJpeg) -> None:
        self.server, self.stop = server, threading.Event()
        self.thread = threading.Thread(target=self.show)

    def show(self) -> None:
        width = 1
        while not self.stop.wait(0.005):
            assert self.server.show(Image.new("RGB", (width, 8), "red"), FRAME)
            width += 1

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        self.thread.join()


def test_the_page_shows_the_stream(server):
    response = connect(server, "/")
    assert response.status == 200
    assert b'src="/stream.mjpg"' in response.read()


def test_frames_come_one_after_another(server):
    with Showing(server):
        response = connect(server, "/stream.mjpg")
        assert response.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=frame"
        widths = [read_frame(response).width for _ in range(5)]
    assert widths == sorted(set(widths))


def test_a_viewer_that_does_not_read_holds_nobody_up(server):
    with Showing(server):
        idle, busy = connect(server, "/stream.mjpg"), connect(server, "/stream.mjpg")
        assert [read_frame(busy).height for _ in range(50)] == [8] * 50
        idle.close()


def test_a_viewer_too_many_is_told_so(server, monkeypatch):
    monkeypatch.setattr(mjpeg, "_MOST_VIEWERS", 1)
    with Showing(server):
        first = connect(server, "/stream.mjpg")
        read_frame(first)
        assert connect(server, "/stream.mjpg").status == 503


def test_the_stream_ends_with_the_server_after_a_whole_frame():
    with MotionJpeg(0) as server, Showing(server):
        response = connect(server, "/stream.mjpg")
        read_frame(response)
    while response.peek(1):  # what was on its way
        assert read_frame(response).height == 8
    assert response.read() == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server, "/")


def test_it_answers_this_machine_by_its_own_names_alone(server):
    """A page of elsewhere whose name was made to mean 127.0.0.1 must not see the camera."""
    port = server.url.rsplit(":", 1)[1].rstrip("/")
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert connect(server, "/", Host=f"{name}:{port}").status == 200
        assert connect(server, "/", Host=name).status == 200  # as of port 80
    for name in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "[::1", ""):
        assert connect(server, "/", Host=name).status == 403
    assert connect(server, "/other").status == 404


def test_who_neither_asks_nor_takes_a_frame_is_cut(monkeypatch):
    monkeypatch.setattr(mjpeg, "_TIMEOUT", 0.1)
    noise = Image.effect_noise((1200, 1200), 100).convert("RGB")
    with MotionJpeg(0) as server:
        host, port = server.url.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as silent:
            assert silent.recv(1) == b""
        stalled = connect(server, "/stream.mjpg")
        for _ in range(1000):  # megabytes that are not read
            server.show(noise, FRAME)
            if not server._frames.viewers:
                break
        assert not server._frames.viewers
        stalled.close()


def test_a_port_that_is_taken_is_an_error(server):
    port = int(server.url.rsplit(":", 1)[1].rstrip("/"))
    with pytest.raises(InputError, match="cannot listen on"):
        MotionJpeg(port)
