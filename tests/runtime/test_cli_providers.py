"""The command line's --provider and --precision, verify of a backend, doctor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.runtime import loading, sessions
from onnxplain.runtime.sessions import PROVIDERS, Provider

from .test_providers import open_wrong


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def wrong(monkeypatch):
    """A provider `openvino` whose pullback is wrong."""
    table = {**PROVIDERS, "openvino": Provider(open_wrong, lambda: None, ("float32",), ())}
    for module in (sessions, sessions.providers, loading):
        monkeypatch.setattr(module, "PROVIDERS", table)


@pytest.mark.parametrize("provider", ["auto", "cpu", "openvino"])
def test_explain_says_what_it_ran_on(graph_file, photograph, tmp_path, provider):
    if provider == "openvino":
        pytest.importorskip("openvino")
    result = run("explain", graph_file(), photograph, "-o", tmp_path / "o", "--provider", provider)
    assert result.exit_code == 0, result.output
    name = "openvino" if provider == "openvino" else "onnxruntime"
    assert f"{name} on CPU in float32" in result.stderr
    assert (tmp_path / "o" / "photo.png").exists()


def test_explain_with_a_provider_that_is_not_here_is_a_sentence(graph_file, photograph, tmp_path):
    result = run("explain", graph_file(), photograph, "-o", tmp_path, "--provider", "abacus")
    assert result.exit_code == 5
    assert "unknown provider 'abacus'; known: auto, cpu, openvino, cuda" in result.stderr


def test_precision_auto_shows_what_was_tried(graph_file, photograph, tmp_path, wrong):
    result = run("explain", graph_file(), photograph, "-o", tmp_path / "o", "--precision", "auto")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "float32" in line]
    assert ["openvino" in line for line in lines][:1] == [True]
    assert "onnxruntime on CPU in float32" in result.stderr


def test_verify_of_a_right_provider(graph_file):
    pytest.importorskip("openvino")
    result = run("verify", graph_file(), "--provider", "openvino")
    assert result.exit_code == 0, result.output
    assert "1.0000" in result.stdout
    assert "pullback" in result.stdout


def test_verify_of_a_wrong_provider(graph_file, wrong):
    result = run("verify", graph_file(), "--provider", "openvino")
    assert result.exit_code == 1
    assert "WRONG" in result.stdout


def test_the_bound_of_verify_can_be_set(graph_file, photograph, wrong):
    arguments = ["--provider", "openvino", "--at-least", "-1", "--image", photograph]
    assert run("verify", graph_file(), *arguments).exit_code == 0


def test_doctor_names_every_provider_and_what_auto_takes():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for name in PROVIDERS:
        assert name in result.stdout
    assert "auto in float32: " in result.stdout


@pytest.mark.parametrize(
    ("saturates", "computed"), [(True, "float32, for want of"), (False, "int8")]
)
def test_doctor_says_how_quantised_networks_are_computed(saturates, computed, monkeypatch):
    monkeypatch.setattr("onnxplain.cli.doctor.saturates", lambda: saturates)
    assert f"quantised networks here: in {computed}" in run("doctor").stdout


def test_doctor_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert 'pip install "onnxplain[openvino]"' in result.stdout
