"""Several models: loaded when asked for, dropped for others, never while in use."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref

import pytest

from onnxplain.errors import BackendError
from onnxplain.runtime import Explainer
from onnxplain.serve import models, settings
from onnxplain.serve.refusal import Refusal
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Batching, Limits, Running, Settings, spread


def explain(client, name: str, png: bytes):
    return client.post(f"/v1/models/{name}:explain", files={"image": png})


def loaded(client) -> set[str]:
    return {model["name"] for model in client.get("/v1/models").json()["models"] if model["loaded"]}


def value(client, metric: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{metric} ")).split()[-1])


def test_a_model_is_loaded_when_first_asked_for(client, png):
    assert loaded(client) == set()
    assert explain(client, "tiny", png).status_code == 200
    assert loaded(client) == {"tiny"}
    explain(client, "tiny", png)
    assert value(client, 'onnxplain_model_loads_total{model="tiny"}') == 1


def test_models_are_preloaded_as_far_as_there_is_room(serve):
    client = serve(running=Running("cpu", loaded=2, preload=True))
    assert loaded(client) == {"tiny", "multi"}


def test_the_one_unused_for_longest_makes_room(serve, png):
    client = serve(running=Running("cpu", loaded=2))
    for name in ("tiny", "multi", "tiny", "live"):
        assert explain(client, name, png).status_code == 200
    assert loaded(client) == {"tiny", "live"}
    assert value(client, 'onnxplain_model_evictions_total{model="multi"}') == 1
    assert value(client, "onnxplain_models_loaded") == 2
    assert explain(client, "multi", png).status_code == 200


def test_a_model_that_is_dropped_leaves_the_memory(serve, png):
    client = serve(running=Running("cpu", loaded=1))
    explain(client, "tiny", png)
    dropped = weakref.ref(client.service.models.loaded("tiny").explainer)
    explain(client, "multi", png)
    client.get("/metrics")
    gc.collect()
    assert dropped() is None


def test_a_model_in_use_is_not_dropped(serve, png, monkeypatch):
    client = serve(running=Running("cpu", loaded=1))
    inside, go = threading.Event(), threading.Event()
    answer = Explainer.answer

    def slow(*args, **kwargs):
        inside.set()
        go.wait(20)
        return answer(*args, **kwargs)

    monkeypatch.setattr(Explainer, "answer", slow)
    answers = []
    first = threading.Thread(target=lambda: answers.append(explain(client, "tiny", png)))
    first.start()
    assert inside.wait(20)
    refused = explain(client, "multi", png)
    go.set()
    first.join()
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert answers[0].status_code == 200
    assert explain(client, "multi", png).status_code == 200


def test_requests_at_the_same_time_load_a_model_once(serve, png):
    client = serve()
    threads = [threading.Thread(target=explain, args=(client, "tiny", png)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(client, 'onnxplain_model_loads_total{model="tiny"}') == 1


@pytest.fixture
def slow_load(monkeypatch):
    """No model is loaded before `go` is set; what was to be loaded."""
    go, loads, load = threading.Event(), [], models.load

    def slow(path, *args):
        loads.append(path)
        go.wait(20)
        return load(path, *args)

    monkeypatch.setattr(models, "load", slow)
    yield go, loads
    go.set()


def test_a_load_outlives_who_asked_for_it_and_counts(graphs, slow_load):
    go, loads = slow_load

    async def use(service, name):
        async with service.models.use(name) as model:
            return model.name

    async def main():
        service = Service(Settings(graphs, running=Running("cpu", loaded=1)))
        first = asyncio.create_task(use(service, "tiny"))
        while not loads:
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(Refusal, match="in use"):
            await use(service, "multi")
        second = asyncio.create_task(use(service, "tiny"))
        await asyncio.sleep(0.01)
        go.set()
        assert await second == "tiny"
        assert await use(service, "multi") == "multi"
        service.close()

    asyncio.run(main())
    assert loads == [graphs["tiny"], graphs["multi"]]


def test_a_load_that_fails_is_tried_again(serve, png, monkeypatch):
    client, load = serve(), models.load

    def fails(*_):
        monkeypatch.setattr(models, "load", load)
        raise BackendError("not now")

    monkeypatch.setattr(models, "load", fails)
    assert explain(client, "tiny", png).status_code == 500
    assert explain(client, "tiny", png).status_code == 200


def test_asking_for_a_models_ports_is_bounded_like_any_request(serve, slow_load):
    go, loads = slow_load
    client = serve(limits=Limits(requests=1))
    answers = []
    first = threading.Thread(target=lambda: answers.append(client.get("/v2/models/tiny")))
    first.start()
    while not loads:
        time.sleep(0.01)
    refused = client.get("/v2/models/tiny")
    go.set()
    first.join()
    assert refused.status_code == 503
    assert "wait already" in refused.json()["error"]
    assert answers[0].status_code == 200


def test_asking_for_a_models_ports_is_given_up_when_it_takes_too_long(serve, slow_load):
    response = serve(limits=Limits(seconds=0.3)).get("/v2/models/tiny")
    assert response.status_code == 503
    assert "0.3 s" in response.json()["error"]


def test_a_file_that_is_no_explain_graph_is_refused_before_anybody_asks(tmp_path):
    path = tmp_path / "not.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(BackendError, match=r"not\.onnx"):
        Service(Settings({"not": path}))


@pytest.mark.parametrize(("name", "images"), [("single", 1), ("four", 4), ("tiny", 2)])
def test_a_graph_of_fixed_batch_is_given_no_other(serve, png, monkeypatch, name, images):
    sizes = []
    answer = Explainer.answer

    def watch(self, batch, *args, **kwargs):
        sizes.append((len(batch), kwargs["batch_size"]))
        return answer(self, batch, *args, **kwargs)

    monkeypatch.setattr(Explainer, "answer", watch)
    client = serve(batching=Batching(images=2, wait=0))
    url = f"/v1/models/{name}:explain"
    response = client.post(url, files={"image": png}, data={"targets": ["0", "1", "2", "3", "4"]})
    assert response.status_code == 200, response.text
    assert sizes == [(5, images)]


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 8),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("", 8),
    ],
)
def test_a_containers_share_of_the_processor_counts(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(settings.os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(settings, "_QUOTA", tmp_path / "cpu.max")
    assert settings.cores() == 8  # no cgroups
    (tmp_path / "cpu.max").write_text(quota)
    assert settings.cores() == expected


def test_threads_and_calls_share_the_cores(monkeypatch):
    monkeypatch.setattr("onnxplain.serve.settings.cores", lambda: 8)
    assert spread("cpu", "float32", None, None, None) == (1, 8, 2)
    assert spread("cpu", "float32", 4, None, 16) == (4, 2, 16)
    assert spread("cpu", "float32", None, 2, None) == (4, 2, 2)
    assert spread("cpu", "float32", 8, 3, None) == (8, 3, 2)
    assert spread("cuda", "float32", None, None, None) == (None, 2, 8)
