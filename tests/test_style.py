"""Linted, formatted and typed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("bench", "export", "kernels", "onnxplain", "runtime", "tests")
MOST_LINES = 80


def check(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff_is_clean(arguments: list[str]) -> None:
    check("ruff", *arguments, "--no-cache", ".")


def test_no_function_is_longer_than_a_page() -> None:
    """Behind its docstring, where it has one."""
    long = []
    for path in (p for part in PARTS for p in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                docstring = node.body[0] if ast.get_docstring(node) else None
                first = node.lineno if docstring is None else docstring.end_lineno or 0
                lines = node.end_lineno - first + 1
                if lines > MOST_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long


def test_errors_that_python_raises_name_its_arguments() -> None:
    """`size=`, which the command line turns into `--size`; or a whole command to give."""
    wrong = []
    for path in (p for part in PARTS if part != "tests" for p in (ROOT / part).rglob("*.py")):
        if "cli" in path.parts or "bench" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                said = " ".join(text for text in texts if isinstance(text, str))
                if re.search(r"(?<!\w)--[a-z]", said) and not re.search(
                    r"onnxplain (--trust )?[a-z]", said
                ):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def test_mypy_is_clean() -> None:
    check("mypy", "-p", "onnxplain", "--no-incremental", "--cache-dir", os.devnull)
