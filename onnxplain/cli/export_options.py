"""The options of an export on the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxplain import reading
from onnxplain.cli.declared import Command, with_options
from onnxplain.cli.options import as_floats, as_size
from onnxplain.contract.request import ANY, ExportOptions
from onnxplain.errors import InputError

if TYPE_CHECKING:
    from onnxplain.runtime.inputs.scalars import Temperatures


def as_labels(path: Path | None, option: str) -> list[str] | None:
    """The class names that a file holds.

    Raises:
        InputError: it cannot be read.
    """
    if path is None:
        return None
    try:
        text = reading.text(path)
        if path.suffix == ".json":
            return [str(name) for name in reading.parsed(text)]
        return text.splitlines()
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{option}: cannot read the names in {path}: {error}") from error


def as_parameters(texts: list[str] | None, option: str) -> dict[str, float]:
    """A method's parameters, each given as NAME=NUMBER.

    Raises:
        InputError: one is given otherwise, or twice.
    """
    values: dict[str, float] = {}
    for text in texts or []:
        name, _, number = text.partition("=")
        if name in values:
            raise InputError(f"{option} gives {name} twice")
        try:
            values[name] = float(number)
        except ValueError:
            raise InputError(f"{option} takes NAME=NUMBER, not {text!r}") from None
    return values


def as_choices(texts: list[str] | None, option: str) -> dict[str, float | str]:
    """Parameters of a method and an estimator, each given as NAME=NUMBER or NAME=WORD.

    Raises:
        InputError: one is given otherwise, or twice.
    """
    values: dict[str, float | str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if name in values:
            raise InputError(f"{option} gives {name} twice")
        if not equals or not value:
            raise InputError(f"{option} takes NAME=NUMBER or NAME=WORD, not {text!r}")
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = value
    return values


def as_settings(texts: list[str] | None, option: str) -> dict[str, str] | None:
    """An objective's settings, each given as NAME=VALUE.

    Raises:
        InputError: one is given otherwise, or twice.
    """
    return _named(texts, str.partition, f"{option} takes NAME=VALUE, each name once")


def as_rules(texts: list[str] | None, option: str) -> dict[str, str] | None:
    """Rules of layers, each given as WHERE=RULE.

    Raises:
        InputError: one is given otherwise, or twice.
    """
    return _named(texts, str.rpartition, f"{option} takes WHERE=RULE, each place once")


def _named(
    texts: list[str] | None, split: Callable[[str, str], tuple[str, str, str]], said: str
) -> dict[str, str] | None:
    """What stands behind the "=" at which each is split, by what stands before it."""
    values: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = split(text, "=")
        if not equals or not name or name in values:
            raise InputError(f"{said}, not {text!r}")
        values[name] = value
    return values or None


def as_text(text: str | None, option: str) -> str | None:
    """What Python takes as text too."""
    return text


def as_sizes(texts: list[str] | None, option: str) -> dict[str, int] | None:
    """Sizes, each given as NAME=NUMBER.

    Raises:
        InputError: one is given otherwise, or twice.
    """
    sizes: dict[str, int] = {}
    for name, number in as_parameters(texts, option).items():
        if not number.is_integer():
            raise InputError(f"{option} takes NAME and a whole number, not {number}")
        sizes[name] = int(number)
    return sizes or None


def as_live(temperature: float | None, texts: list[str] | None) -> Temperatures:
    """The live parameters of a graph that `--temperature` and `--param` give.

    Raises:
        InputError: one of them cannot be read, or is given twice.
    """
    if not texts:
        return temperature
    given = as_parameters(texts, "--param")
    if temperature is None:
        return given
    if "temperature" in given:
        raise InputError("the temperature is given twice, also by --param: choose one")
    return {"temperature": temperature, **given}


def as_size_or_any(text: str | None, option: str) -> tuple[int, int] | str | None:
    """Height and width, or "any"."""
    return text if text == ANY else as_size(text, option)


def as_names(texts: list[str] | None, option: str) -> tuple[str, ...]:
    """Names, each given by itself."""
    return tuple(texts or ())


_READ: Mapping[str, Callable[[Any, str], Any]] = {
    "size": as_size_or_any,
    "sizes": as_sizes,
    "mean": as_floats,
    "std": as_floats,
    "labels": as_labels,
    "objective": as_text,
    "settings": as_settings,
    "rules": as_rules,
    "parameters": as_choices,
    "excepted": as_names,
    "live": as_names,
    "wrt": as_names,
    "layer": as_names,
    "picture": as_text,
}


def with_export_options(*, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command with a parameter `options` those that Python gives as `ExportOptions`.

    The temperature is the command's own, as it may be found on photographs.
    """
    left_out = [*without, "temperature", "example", "progress"]
    return with_options("options", ExportOptions, without=left_out, read=_READ)
