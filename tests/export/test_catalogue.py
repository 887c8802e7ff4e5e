"""`onnxplain methods`, made of what is declared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.export import METHODS
from onnxplain.export.catalogue import as_markdown, catalogue
from onnxplain.export.estimators import ESTIMATORS
from onnxplain.export.methods.layer_rules import RULES
from onnxplain.export.objectives import OBJECTIVES

PAGE = Path(__file__).parent.parent.parent / "docs" / "estimators.md"


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers of one size, so that the ends count little."""
    path, random = tmp_path_factory.mktemp("layers") / "net.onnx", np.random.default_rng(0)
    lines = [f"x{i + 1} = Conv <pads = [1, 1, 1, 1]> (x{i}r, w{i})\n" for i in range(6)]
    steps = [f"x{i}r = {'Identity' if i == 0 else 'Relu'} (x{i})\n" for i in range(6)]
    body = "".join(step + line for step, line in zip(steps, lines, strict=True))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> net (float[N, 3, 16, 16] x0) => '
        f"(float[N, 8] logits) {{ {body} x6r = Relu (x6) mean = GlobalAveragePool (x6r) "
        "logits = Flatten (mean) }"
    )
    for i in range(6):
        weight = random.normal(size=(8, 8 if i else 3, 3, 3)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{i}"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.attention_map is None]
)
def test_a_methods_cost_is_what_it_says(convolutions, tmp_path, name):
    method = METHODS[name]
    made = onnxplain.export(convolutions, tmp_path / "explain.onnx", method=name)
    cost = made.multiply_adds["explain"] / made.multiply_adds["forward"]
    for_each_channel = 8 if name == "scorecam" else 0
    assert cost == pytest.approx(method.forwards + for_each_channel, abs=0.25)


def test_all_that_is_registered_is_listed_and_described():
    entries = list(catalogue())
    assert [e.name for e in entries] == [*METHODS, *RULES, *ESTIMATORS, *OBJECTIVES]
    assert all(entry.good_for for entry in entries)
    assert all(entry.source for entry in entries if entry.kind != "objective")
    for entry in entries:
        shown = CliRunner().invoke(app, ["methods", entry.name])
        assert shown.exit_code == 0
        assert entry.good_for in shown.output
        assert f"source: {entry.source}" in shown.output or not entry.source
        assert f"needs: {entry.needs}" in shown.output or not entry.needs


@pytest.mark.parametrize(
    ("also", "own"),
    [
        ("saliency", "method gradient"),
        ("GradCAM", "method gradcam"),
        ("IG", "estimator integrated-gradients"),
        ("alpha_beta", "rule alpha-beta"),
    ],
)
def test_one_is_found_by_the_names_that_an_export_understands(also: str, own: str) -> None:
    shown = CliRunner().invoke(app, ["methods", also])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"{own}: ")


def test_every_name_and_use_can_be_read_on_a_terminal_of_80_columns() -> None:
    shown = CliRunner().invoke(app, ["methods"], env={"COLUMNS": "80"}).output
    words = [*shown.split(), *shown.replace("-", " ").split()]
    for entry in catalogue():
        assert entry.name in words
        assert set(entry.good_for.replace("-", " ").split()) <= set(words)
    assert len(shown.splitlines()) < 2.5 * len(list(catalogue()))
    assert "onnxplain methods NAME" in shown


def test_the_command_shows_the_table():
    shown = CliRunner().invoke(app, ["methods", "--markdown"])
    assert shown.output.strip() == as_markdown(catalogue())
    shown = CliRunner().invoke(app, ["methods"])
    assert "integrated-gradients" in shown.output
    wrong = CliRunner().invoke(app, ["methods", "smothgrad"])
    assert wrong.exit_code != 0
    assert "did you mean smoothgrad" in " ".join(wrong.output.split())


def test_the_page_has_the_table():
    table = PAGE.read_text().split("<!-- catalogue -->\n")[1].split("\n<!-- /catalogue -->")[0]
    assert table == as_markdown(catalogue())


def test_the_page_lists_every_estimators_parameters():
    rows = ["| estimator | parameter | default | may be | what it is |", "|" + " --- |" * 5]
    for estimator in ESTIMATORS.values():
        rows += [
            f"| `{estimator.name}` | `{p.name}` | {p.default} | {p.range} | {p.help} |"
            for p in estimator.own
        ]
    table = PAGE.read_text().split("<!-- estimators -->\n")[1].split("\n<!-- /estimators -->")[0]
    assert table == "\n".join(rows)
