"""What a type checker makes of a user's script."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import onnxplain
from onnxplain import export

pytestmark = pytest.mark.xdist_group("types")

ROOT = Path(__file__).parent.parent

CONFIGURATION = """
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,onnx.*,onnxscript.*,onnx_ir.*,onnxruntime.*,PIL.*]
follow_imports = skip
ignore_missing_imports = true
"""
SCRIPT = """
from pathlib import Path

import numpy as np

import onnxplain
from onnxplain.export import Method, Parameter, check_vjp, register_method

metadata = onnxplain.export("resnet50", Path("a.onnx"), method="semantic", temperature=1, size=224)
print(metadata.method.upper(), metadata.notes[0].upper())
onnxplain.export(source="a.onnx", path="b.onnx", parameters={"relu": 0.5}, mean=[0.5], step=True)
explainer = onnxplain.load("a.onnx", provider="cpu")
explainer("cat.jpg").save("why.png")
register_method(Method("mine", parameters=(Parameter("beta", 1.0, "how sharp"),)))
onnxplain.export.register_method(onnxplain.export.Method("mine"))
check_vjp("Relu", [np.ones(3)])[0].shape

onnxplain.export("resnet50", "a.onnx", colour="red")  # wrong
onnxplain.export("resnet50", "a.onnx", method=3)  # wrong
onnxplain.export("resnet50")  # wrong
onnxplain.export("resnet50", "a.onnx").colour  # wrong
onnxplain.load("a.onnx", provider=3)  # wrong
explainer("cat.jpg").save()  # wrong
"""
PUBLIC = "import onnxplain\n" + "\n".join(f"onnxplain.export.{name}" for name in export.__all__)
SCRIPTS = {"script.py": SCRIPT, "public.py": PUBLIC}


@pytest.fixture(scope="module")
def wrong_lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The lines of each script that mypy finds wrong."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "mypy.ini").write_text(CONFIGURATION)
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    command = ["mypy", "--config-file", "mypy.ini", "--cache-dir", os.devnull, *SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "", "MYPYPATH": str(ROOT)},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    assert {file for file, *_ in found} <= set(SCRIPTS), done.stdout
    return {name: sorted({int(n) for file, n, *_ in found if file == name}) for name in SCRIPTS}


def test_export_is_the_function_that_it_is_and_load_too(wrong_lines: dict[str, list[int]]) -> None:
    wrong = [i for i, line in enumerate(SCRIPT.splitlines(), 1) if line.endswith("# wrong")]
    assert wrong_lines["script.py"] == wrong


def test_the_checker_knows_all_that_export_holds(wrong_lines: dict[str, list[int]]) -> None:
    assert wrong_lines["public.py"] == []


def test_an_editable_installation_is_a_path_and_no_import_hook() -> None:
    """Type checkers follow the one and do not run the other."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["distutils"]["editable_wheel"]["mode"] == "compat"


def test_the_public_names_are_listed() -> None:
    assert set(onnxplain.__all__) <= set(dir(onnxplain))
    assert all(hasattr(onnxplain, name) for name in dir(onnxplain))
