"""The CUDA backend under a CUDA that answers and computes nothing.

The tests are those of `under_fake.py`. They run in one process that sees the fake from its start,
without torch, which would see it too; here each of them passes or fails.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).with_name("under_fake.py")
NAMES = [
    node.name
    for node in ast.parse(TESTS.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.fixture(scope="module")
def failures(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The tests that ran → what they said where they failed, for all their parameters."""
    report = tmp_path_factory.mktemp("under-fake") / "report.xml"
    plain = ["--noconftest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    command = [sys.executable, "-m", "pytest", *plain, "--import-mode=importlib"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", str(TESTS)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    said: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"].partition("[")[0]
        said[name] = said.get(name, "") + "".join(child.text or "" for child in case)
    return said


@pytest.mark.xdist_group("cuda-backend")
@pytest.mark.parametrize("name", NAMES)
def test_under_the_fake_cuda(name: str, failures: dict[str, str]) -> None:
    assert not failures[name], failures[name]
