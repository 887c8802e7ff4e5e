"""The memory of a process tree."""

from __future__ import annotations

import subprocess
import sys

import psutil

from onnxplain.bench.peak_memory import held

CHILD = "held = bytearray(b'1' * 2**26); print(flush=True); input()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_what_a_child_holds_counts_and_what_has_ended_does_not() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child's: it holds its bytes
        root = psutil.Process(process.pid)
        assert held(root) >= 2**26
        process.communicate(b"\n")
    assert held(root) == 0
