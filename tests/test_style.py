"""Linted, formatted and typed."""

from __future__ import annotations

import shutil
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


def test_mypy_is_clean(tmp_path: Path) -> None:
    """On a copy laid out as the packages are installed, which is where mypy looks for them."""
    package = tmp_path / "onnxplain"
    shutil.copytree(ROOT / "onnxplain", package)
    for part in "batch bench export kernels runtime serve stream vital web".split():  # noqa: SIM905
        shutil.copytree(ROOT / part, package / part)
    config = ["--config-file", ROOT / "pyproject.toml"]
    check("mypy", "-p", "onnxplain", *config, "--no-incremental", cwd=tmp_path)
