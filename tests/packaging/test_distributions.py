"""What is published: an sdist, the wheel made of it, and that wheel in an empty environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from ..environments import environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT = (".git", ".ci", "build", "dist", "docs", "tests", "*.egg-info", "__pycache__", ".*_cache")
PARTS = ("bench", "export", "runtime")


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)


def built(kind: str, source: Path, folder: Path) -> Path:
    """An sdist or a wheel of a tree."""
    code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    done = run(sys.executable, "-c", code, cwd=source)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, which is made of a copy of the tree."""
    folder = tmp_path_factory.mktemp("distributions")
    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=shutil.ignore_patterns(*LEFT))
    sdist = built("sdist", folder / "tree", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (unpacked,) = (folder / "sdist").iterdir()
    return built("wheel", unpacked, folder)


def test_the_wheel_holds_every_module_and_what_they_read(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    here = [p for part in PARTS for p in (ROOT / part).rglob("*.py")]
    here += (ROOT / "kernels").glob("*.py")
    modules = {f"onnxplain/{p.relative_to(ROOT).as_posix()}" for p in here}
    own = (p for p in (ROOT / "onnxplain").rglob("*") if p.is_file() and p.suffix != ".pyc")
    modules |= {p.relative_to(ROOT).as_posix() for p in own if "__pycache__" not in p.parts}
    modules |= {"onnxplain/runtime/pictures/page.html"}
    assert not modules - held


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment of the wheel and what it requires, without extras."""
    folder = tmp_path_factory.mktemp("empty")
    packages = environment(folder)
    assert not (packages / "torch").exists()
    assert not (packages / "onnx").exists()
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    done = run(*pip, "install", "--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_wheel_runs_where_nothing_else_is(programs: Path, tmp_path: Path) -> None:
    version = "import onnxplain; print(onnxplain.__version__, onnxplain.__file__)"
    done = run(programs / "python", "-c", version, cwd=tmp_path)
    found, _, file = done.stdout.strip().partition(" ")
    assert found == PROJECT["version"]
    assert Path(file).is_relative_to(programs.parent)
    done = run(programs / "onnxplain", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "explain" in done.stdout
    done = run(programs / "onnxplain", "export", "resnet50", cwd=tmp_path)
    assert done.returncode > 2
    assert "pip install" in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_the_version_is_said_once() -> None:
    said = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert said
    assert said[1] == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
