"""Several threads, many calls, failures in between: the answers stay right, the memory bounded."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import load

PROVIDERS = ["cpu", "openvino"]
THREADS = 6
LET_GO = """
import signal, sys
from onnxplain.runtime import load

explainers = [load(*sys.argv[1:]) for _ in range(2)]
while explainers:
    del explainers[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(params=PROVIDERS)
def provider(request):
    pytest.importorskip({"cpu": "onnxruntime"}.get(request.param, request.param))
    return request.param


def images_of(tiny, batch: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, 3, tiny.height, tiny.width)).astype(np.float32)


def check(tiny, explainer, batch: int, seed: int) -> None:
    images = images_of(tiny, batch, seed)
    targets = np.arange(seed, seed + batch) % tiny.classes
    found = explainer(images, targets)
    np.testing.assert_allclose(found.logits, tiny.logits(images), rtol=1e-4, atol=1e-5)
    expected = tiny.gradient(images, targets)
    np.testing.assert_allclose(found.pullback, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hint", [{}, {"hint": "throughput"}], ids=["latency", "throughput"])
def test_several_threads_get_their_own_answers(graph_file, tiny, provider, hint):
    if provider == "cpu" and hint:
        pytest.skip("a hint of openvino's")
    explainer = load(graph_file(), provider, **hint)
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        start.wait()
        for call in range(40):
            check(tiny, explainer, batch=1 + (number + call) % 4, seed=100 * number + call)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, number) for number in range(THREADS)]:
            done.result()


def test_a_failing_thread_disturbs_no_other(graph_file, tiny, provider):
    explainer = load(graph_file(), provider)

    def fail() -> None:
        for _ in range(40):
            with pytest.raises((BackendError, InputError)):
                explainer.backend.run({"image": np.zeros((2, 3, 5, 5), np.float32)})
            with pytest.raises(InputError):
                explainer(images_of(tiny, 1, 0), targets=tiny.classes)

    def work(number: int) -> None:
        for call in range(40):
            check(tiny, explainer, batch=1 + call % 3, seed=100 * number + call)

    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(work, n) for n in range(THREADS - 1)] + [pool.submit(fail)]
        for done in jobs:
            done.result()


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(explainer, tiny, calls: int) -> int:
    """By how much the memory grew over the second half of `calls` calls of mixed batch sizes."""
    middle = 0
    for call in range(calls):
        if call == calls // 2:
            gc.collect()
            middle = resident()
        check(tiny, explainer, batch=1 + call * 7 % 13, seed=call)
    gc.collect()
    return resident() - middle


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_steady_over_hundreds_of_calls(graph_file, tiny, provider):
    assert growth(load(graph_file(), provider), tiny, calls=400) < 4 << 20


@pytest.mark.sweep
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_steady_over_ten_thousand_calls(graph_file, tiny, provider):
    assert growth(load(graph_file(), provider), tiny, calls=10_000) < 8 << 20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_explainers_that_are_let_go_give_their_memory_back(graph_file, tiny, provider):
    path = graph_file()

    def use() -> int:
        for _ in range(10):
            check(tiny, load(path, provider), batch=2, seed=0)
        gc.collect()
        return resident()

    use()
    before = use()
    assert use() - before < 8 << 20


def test_ctrl_c_interrupts_after_explainers_were_let_go(graph_file, provider):
    """Two OpenVINO cores, let go in the order in which they came, made it a segmentation fault."""
    command = [sys.executable, "-c", LET_GO, graph_file(), provider]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
