"""The programs of examples/camera, and the commands that their page gives."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "camera"
MODEL = "model.explain.onnx"
_LINES = "".join(re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL))


def documented(start: str, photograph: str = "cat.jpg") -> list[str]:
    """The one command of the page that starts so, of a photograph."""
    (line,) = (line for line in _LINES.splitlines() if line.startswith(start))
    return [photograph if word == "cat.jpg" else word for word in shlex.split(line)]


def run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What it says on standard output, in a folder where its files are."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ranking(lines: str) -> list[tuple[int, float]]:
    """Indices and probabilities, a line each; what stands behind them is a name."""
    return [(int(i), float(p)) for i, p, *_ in (line.split() for line in lines.splitlines())]
