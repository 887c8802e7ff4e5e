"""The notebooks run as they stand, cell by cell, and say what their prose says."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import onnxplain

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def run(name: str) -> dict[str, Any]:
    """A notebook's values after its last cell, where what ends a cell has been shown."""
    values: dict[str, Any] = {}
    for cell in (NOTEBOOKS / name).read_text().split("# %%"):
        *begin, last = ast.parse(f"#{cell}").body or ast.parse("pass").body
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(begin, []), name, "exec"), values)
            shown = eval(compile(ast.Expression(last.value), name, "eval"), values)
            assert getattr(shown, "_repr_png_", shown.__repr__)()
        else:
            exec(compile(ast.Module([*begin, last], []), name, "exec"), values)
    return values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_explain_a_network(folder: Path) -> None:
    values = run("explain_a_network.py")
    explanation, runner_up = values["explanation"], values["runner_up"]
    ranking = explanation.logits[0].argsort()[::-1]
    assert explanation.labels(1)[0][0][0] == "espresso"
    assert explanation.targets[0] == ranking[0]
    assert runner_up.targets[0] == ranking[1]
    assert (folder / "why.png").stat().st_size > 1000


def test_any_onnx_file(folder: Path, lite0_forward: Path) -> None:
    (folder / "network.onnx").symlink_to(lite0_forward)
    values = run("any_onnx_file.py")
    photograph, picture = values["photograph"], values["picture"]
    assert values["classes"][0][0] == 657  # ImageNet's missile
    expected = onnxplain.load("camera.explain.onnx", "cpu")(photograph)
    assert picture.shape == (1, *photograph.shape)
    assert (picture == expected.picture).all()
    assert json.loads(values["metadata"]["onnxplain.parameters"]) == {"temperature": 1.0}
