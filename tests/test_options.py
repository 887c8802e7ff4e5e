"""Options declared once: what Python checks, and what a command makes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import guarded, with_flags
from onnxplain.cli.declared import with_options
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import InputError
from onnxplain.options import check, check_types, option


@dataclass(frozen=True)
class Ascent:
    method: str = option("adam", "How it climbs.", choices=("adam", "sgd"), short="m")
    steps: int = option(10, "Steps to take.", least=1)
    rate: float | None = option(None, "The step size.", unset="the method's own", name="step_size")
    weights: tuple[float, ...] | None = option(None, "One for each layer.")
    limits: tuple[float, float] | None = option(None, "The lowest and the highest value.")
    verbose: bool = option(False, "Say more.")


def run(*arguments: str):
    """What the command is given, or how it fails."""
    app, seen = typer.Typer(), []

    @app.command()
    @guarded
    @with_options("ascent", Ascent, without=["verbose"], defaults={"steps": 20})
    def climb(*, hill: str = "here", ascent: Ascent, count: int = 1) -> None:
        seen.append((hill, ascent, count))

    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}), seen


def test_each_field_is_an_option_of_its_name_or_of_the_declared_one() -> None:
    given = ["--hill", "there", "-m", "sgd", "--steps", "3", "--step-size", "0.5", "--count", "2"]
    done, seen = run(*given)
    assert done.exit_code == 0, done.output
    assert seen == [("there", Ascent("sgd", 3, 0.5), 2)]


def test_a_command_may_have_defaults_of_its_own_and_leave_fields_out() -> None:
    assert run()[1] == [("here", Ascent(steps=20), 1)]
    assert run("--verbose")[0].exit_code == 2


def test_tuples_are_numbers_with_commas_between() -> None:
    ((_, ascent, _),) = run("--weights", "1,2.5,3e-7", "--limits", "0,1")[1]
    assert (ascent.weights, ascent.limits) == ((1.0, 2.5, 3e-7), (0.0, 1.0))
    wrong = run("--limits", "1,2,3")[0]
    assert (wrong.exit_code, "--limits takes two numbers, not 3" in wrong.output) == (4, True)
    wrong = run("--weights", "a,b")[0]
    assert (wrong.exit_code, "--weights takes numbers" in wrong.output) == (4, True)


def test_the_help_says_what_is_declared() -> None:
    text = run("--help")[0].output
    assert "How it climbs." in text
    assert "x>=1" in text
    assert "[default: 20]" in text
    assert "the method's own" in text
    assert run("--steps", "0")[0].exit_code == 2


@pytest.mark.parametrize(
    ("ascent", "words"),
    [
        (Ascent(steps=1.5), "steps must be a whole number, not 1.5"),
        (Ascent(weights="12"), "weights must be a sequence of numbers, not '12'"),
        (Ascent(limits=(0.0,)), r"limits must be two numbers, not \(0.0,\)"),
        (Ascent(steps=0), "steps must be at least 1, not 0"),
        (Ascent(method="tea"), "method is one of adam, sgd, not 'tea'"),
    ],
)
def test_python_is_held_to_the_same(ascent: Ascent, words: str) -> None:
    check(Ascent())
    with pytest.raises(InputError, match=words):
        check(ascent)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("unroll", 1.5, "a whole number"),
        ("unroll", True, "a whole number"),
        ("size", (16,), "a whole number or two whole numbers or a string"),
        ("size", 16.0, "a whole number or two whole numbers or a string"),
        ("size", True, "a whole number or two whole numbers or a string"),
        ("mean", 0.5, "a sequence of numbers"),
        ("mean", [[0.5]], "a sequence of numbers"),
        ("std", "0.5", "a sequence of numbers"),
        ("temperature", "warm", "a number"),
        ("temperature", [0.3], "a number"),
        ("temperature", False, "a number"),
        ("parameters", {"relu": None}, "numbers or strings by name"),
        ("parameters", {"relu": True}, "numbers or strings by name"),
        ("parameters", {1: 0.5}, "numbers or strings by name"),
        ("parameters", "relu=0.5", "numbers or strings by name"),
        ("labels", "abcde", "a sequence of strings"),
        ("labels", ["a", 5], "a sequence of strings"),
        ("excepted", "relu", "a sequence of strings"),
        ("layer", 5, "a string or a sequence of strings"),
        ("layer", ["stem", 5], "a string or a sequence of strings"),
        ("method", ["gradient"], "a string"),
        ("multi_target", "no", "True or False"),
        ("step", 1, "True or False"),
        ("progress", "bar", "a function"),
    ],
)
def test_an_exports_options_are_of_the_types_declared(
    name: str, value: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^{name} must be {words}, not {re.escape(repr(value))}$"):
        onnxplain.export("no-such-network", tmp_path / "e.onnx", **{name: value})


def test_numpys_numbers_and_arrays_are_numbers_and_sequences() -> None:
    options = ExportOptions(
        size=np.int64(24),
        mean=np.array([0.5, 0.25], np.float32),
        temperature=np.float32(0.5),
        unroll=np.int32(3),
        step=np.True_,
        labels=("cat", "dog"),
    )
    check_types(options)
    assert options.height_and_width == (24, 24)
    for size in ((24, 32), [24, 32], np.array([24, 32])):
        check_types(ExportOptions(size=size))
        assert ExportOptions(size=size).height_and_width == (24, 32)


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(InputError, match=r"not \[0, 1, 2.* …$") as caught:
        check_types(ExportOptions(labels=list(range(999))))
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("fix it with size=", "fix it with --size"),
        ("size=HEIGHT", "--size HEIGHT"),
        ("give mean= and std=", "give --mean and --std"),
        ("weights=PATH, or weights='none' for", "--weights PATH, or --weights none for"),
        ("with live_temperature=True, and", "with --live-temperature, and"),
        ("with live=['relu']", "with --live relu"),
        ("choose with output=: y, m", "choose with --output: y, m"),
        ("'size=3' and colour=red and a beta=0.5", "'size=3' and colour=red and a beta=0.5"),
        ("size=(3, 4); batch_size=3", "size=(3, 4); batch_size=3"),
    ],
)
def test_the_command_line_shows_the_arguments_of_errors_as_its_options(
    said: str, shown: str
) -> None:
    assert with_flags(said) == shown
