"""Options declared once: what Python checks, and what a command makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import typer
from typer.testing import CliRunner

from onnxplain.cli.app import guarded
from onnxplain.cli.declared import with_options
from onnxplain.errors import InputError
from onnxplain.options import check, option


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
        (Ascent(steps=0), "steps must be at least 1, not 0"),
        (Ascent(method="tea"), "method is one of adam, sgd, not 'tea'"),
    ],
)
def test_python_is_held_to_the_same(ascent: Ascent, words: str) -> None:
    check(Ascent())
    with pytest.raises(InputError, match=words):
        check(ascent)
