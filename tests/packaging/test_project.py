"""The project's own files: workflows, templates, citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_read(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_every_version_of_python_that_is_claimed_is_tested() -> None:
    claimed = {
        found[1]
        for name in PROJECT["classifiers"]
        if (found := re.search(r"Python :: (3\.\d+)$", name))
    }
    tests = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert claimed == set(tests["strategy"]["matrix"]["python"])
    assert PROJECT["requires-python"] == f">={min(claimed, key=lambda v: int(v[2:]))}"


def test_extras_that_workflows_and_pages_install_are_there() -> None:
    files = [*FILES, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / ".ci/lowest"]
    extras = set(PROJECT["optional-dependencies"])
    for file in files:
        for asked in re.findall(r"-e [\"']?\.\[([\w,-]+)\]", file.read_text()):
            assert set(asked.split(",")) <= extras, file
