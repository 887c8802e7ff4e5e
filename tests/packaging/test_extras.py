"""Each extra of the wheel brings what its part of the package imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxplain.extras import EXTRAS

from ..environments import environment
from .test_distributions import PROJECT, run, wheel  # noqa: F401

PARTS = {
    "export": ["export"],
    "torch": ["reference/pytorch", "vital"],
    "zoo": ["export/sources"],
    "plot": [],
    "openvino": ["runtime/sessions/openvino"],
    "tensorrt-rtx": [],
    "demo": ["demo.py"],
    "serve": ["serve"],
    "batch": ["batch"],
    "stream": ["stream"],
    "evaluate": ["evaluation"],
    "signal": ["signal"],
}
"""Extra → the files and folders of the package that are of use with it alone."""

ELSEWHERE = {
    "export": {*EXTRAS["torch"], *EXTRAS["zoo"], *EXTRAS["demo"]},
    "torch": {*EXTRAS["demo"]},
    "zoo": {*EXTRAS["demo"]},
    "serve": {*EXTRAS["export"], *EXTRAS["zoo"]},
    "evaluate": {"matplotlib"},
}
"""Extra → what its part imports for one thing more, of which an error names the other extra."""

NOT_HERE = {"kernels", "tensorrt", "cuda"}
"""A distribution of this tree; for machines with a GPU alone."""

SETS = {"all", "bench", "docs", "test"}
"""Extras of other extras, and for work on the project."""


def imported(file: Path) -> Iterator[str]:
    """The packages that a module imports, also within its functions."""
    for found in ast.walk(ast.parse(file.read_text())):
        if isinstance(found, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in found.names)
        elif isinstance(found, ast.ImportFrom) and not found.level:
            yield (found.module or "").partition(".")[0]


def wanted(part: Path) -> set[str]:
    files = part.rglob("*.py") if part.is_dir() else [part]
    found = {package for file in files for package in imported(file)}
    return found - {"onnxplain", *sys.stdlib_module_names}


def test_every_extra_is_tried() -> None:
    assert {*PARTS, *NOT_HERE, *SETS} == {*PROJECT["optional-dependencies"]}


@pytest.mark.parametrize("extra", PARTS)
def test_an_extra_brings_what_its_part_imports(
    extra: str,
    wheel: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    packages = environment(tmp_path / "made", [extra])
    zipfile.ZipFile(wheel).extractall(packages)
    python = tmp_path / "made" / "bin" / "python"

    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--no-index")
    resolved = run(*pip, f"onnxplain[{extra}]", cwd=tmp_path)
    assert resolved.returncode == 0, resolved.stderr
    assert "Would install" not in resolved.stdout

    names = {*EXTRAS[extra]}.union(*(wanted(packages / "onnxplain" / p) for p in PARTS[extra]))
    names -= ELSEWHERE.get(extra, set())
    code = (
        "import json, sys; from importlib.util import find_spec; "
        "print(json.dumps([n for n in json.load(sys.stdin) if find_spec(n) is None]))"
    )
    done = subprocess.run(
        [python, "-c", code],
        input=json.dumps(sorted(names)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(done.stdout) == []
