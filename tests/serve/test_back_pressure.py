"""Too much is refused at once, and what was let in is answered."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from fastapi import Request

from onnxplain.runtime import Explainer
from onnxplain.serve import routes
from onnxplain.serve.refusal import Refusal
from onnxplain.serve.service import read_body
from onnxplain.serve.settings import Batching, Limits

EXPLAIN = "/v1/models/tiny:explain"


@pytest.fixture
def held(monkeypatch):
    """No explanation ends before this is set."""
    go, answer = threading.Event(), Explainer.answer

    def wait(*args, **kwargs):
        go.wait(20)
        return answer(*args, **kwargs)

    monkeypatch.setattr(Explainer, "answer", wait)
    yield go
    go.set()


def wait_for(condition) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


def gauge(client, name: str) -> float:
    """NaN, which equals nothing, where it is not there yet."""
    lines = client.get("/metrics").text.splitlines()
    return float(next((line for line in lines if line.startswith(name)), "nan").split()[-1])


def test_above_the_limit_is_a_503_that_says_when_to_come_back(serve, png, held):
    client = serve(limits=Limits(requests=6), batching=Batching(images=2, wait=0))

    def explain(_: int):
        return client.post(EXPLAIN, files={"image": png})

    with ThreadPoolExecutor(6) as clients:
        inside = [clients.submit(explain, i) for i in range(6)]
        wait_for(lambda: gauge(client, "onnxplain_requests_in_progress") == 6)
        wait_for(lambda: gauge(client, "onnxplain_queue_images") >= 4)  # a call holds the others
        refused = [explain(i) for i in range(3)]
        held.set()
        answers = [future.result() for future in inside]
    assert [answer.status_code for answer in answers] == [200] * 6
    for answer in refused:
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "try again" in answer.json()["error"]
    assert gauge(client, 'onnxplain_refused_total{reason="overloaded"}') == 3
    assert gauge(client, "onnxplain_requests_in_progress") == 0
    assert gauge(client, "onnxplain_held_bytes") == 0
    assert explain(0).status_code == 200


def test_bodies_together_are_bounded_too(serve, png, held):
    client = serve(limits=Limits(held_bytes=2 * len(png)))
    with ThreadPoolExecutor(1) as clients:
        inside = clients.submit(client.post, EXPLAIN, files={"image": png})
        wait_for(lambda: gauge(client, "onnxplain_held_bytes") > len(png))
        refused = client.post(EXPLAIN, files={"image": png})
        held.set()
        assert inside.result().status_code == 200
    assert refused.status_code == 503
    assert gauge(client, "onnxplain_held_bytes") == 0


def test_what_takes_too_long_is_given_up(serve, png, held):
    client = serve(limits=Limits(seconds=0.3))
    response = client.post(EXPLAIN, files={"image": png})
    assert response.status_code == 503
    assert "0.3 s" in response.json()["error"]
    assert response.headers["retry-after"]
    assert gauge(client, "onnxplain_requests_in_progress") == 0
    held.set()


def test_decoding_has_threads_of_its_own_behind_inference(serve, png, monkeypatch):
    seen = {}

    def watched(function):
        def look(*args, **kwargs):
            thread = threading.current_thread()
            priority = os.getpriority(os.PRIO_PROCESS, thread.native_id)
            seen[thread.name.rpartition("_")[0]] = priority
            return function(*args, **kwargs)

        return look

    monkeypatch.setattr(Explainer, "answer", watched(Explainer.answer))
    monkeypatch.setattr(routes, "decode", watched(routes.decode))
    assert serve().post(EXPLAIN, files={"image": png}).status_code == 200
    assert seen.keys() == {"onnxplain-inference", "onnxplain-decode"}
    if sys.platform == "linux":
        assert seen["onnxplain-decode"] > seen["onnxplain-inference"]


def test_metrics_count_every_stage_call_and_answer(serve, png):
    client = serve()
    for _ in range(3):
        client.post(EXPLAIN, files={"image": png})
    client.post(EXPLAIN, content=b"", headers={"Content-Type": "application/json"})
    client.get("/no/such/path")
    for stage, count in {"read": 4, "decode": 4, "queue": 3, "inference": 3, "render": 3}.items():
        assert gauge(client, f'onnxplain_stage_seconds_count{{stage="{stage}"}}') == count
    assert gauge(client, 'onnxplain_batch_images_sum{model="tiny"}') == 3
    route = 'method="POST",route="/v1/models/{name}:explain"'
    assert gauge(client, f'onnxplain_requests_total{{{route},status="200"}}') == 3
    assert gauge(client, f'onnxplain_requests_total{{{route},status="400"}}') == 1
    assert gauge(client, 'onnxplain_requests_total{method="",route="other",status="404"}') == 1
    assert gauge(client, 'onnxplain_refused_total{reason="malformed"}') == 1


def test_methods_that_clients_think_of_are_no_metrics_of_their_own(serve):
    client = serve()
    for i in range(5):
        assert client.request(f"M{i}", EXPLAIN).status_code == 405
    assert client.delete(EXPLAIN).status_code == 405
    refused = 'route="/v1/models/{name}:explain",status="405"'
    assert gauge(client, f'onnxplain_requests_total{{method="",{refused}}}') == 5
    assert gauge(client, f'onnxplain_requests_total{{method="DELETE",{refused}}}') == 1
    assert "M1" not in client.get("/metrics").text


def test_bodies_that_do_not_come_keep_nobody_out(serve, png):
    """300 clients with a head and four bytes once filled the 256 places."""
    client = serve(limits=Limits(requests=2))
    gate = client.service.gate
    with ExitStack() as arriving:
        for _ in range(10):
            arriving.enter_context(gate.arriving()).hold(4)
        assert gauge(client, "onnxplain_held_bytes") == 40
        assert client.post(EXPLAIN, files={"image": png}).status_code == 200
    assert gauge(client, "onnxplain_held_bytes") == 0


def test_a_body_that_pauses_is_given_up_early(serve):
    """What a client has sent takes room from the others while it is silent."""
    limits = Limits(read_seconds=0.8)

    async def receive():
        parts.append(time.monotonic())
        if len(parts) == 1:
            return {"type": "http.request", "body": b"x" * 100, "more_body": True}
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    parts: list[float] = []
    request = Request({"type": "http", "headers": []}, receive)
    gate = serve().service.gate
    with gate.arriving() as place, pytest.raises(Refusal, match="did not come"):
        asyncio.run(read_body(request, place, limits))
    assert time.monotonic() - parts[0] < 0.6
