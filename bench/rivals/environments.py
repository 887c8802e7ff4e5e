"""Environments of their own, for packages that need other versions of what we need too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from onnxplain.runtime.cache import cache_folder


def interpreter(package: str, version: str) -> Path:
    """The Python of an environment with one package and what it needs.

    It is kept in the user's cache, and made where it is not there: minutes, and an index of
    packages, which pip is set for.

    Raises:
        subprocess.CalledProcessError: it cannot be made.
    """
    folder = cache_folder("rivals") / f"{package}-{version}"
    python = folder / "bin/python"
    same = f"from importlib.metadata import version as of; assert of({package!r}) == {version!r}"
    if not python.exists() or subprocess.run([python, "-c", same], capture_output=True).returncode:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            f"{package}=={version}",
        ]
        subprocess.run(install, check=True)
    return python
