"""Linted, formatted and typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def check(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff_is_clean(arguments: list[str]) -> None:
    check("ruff", *arguments, "--no-cache", ".")


def test_mypy_is_clean() -> None:
    check("mypy", "-p", "onnxplain", "--no-incremental")
