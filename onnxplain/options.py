"""Options declared once: the fields of a frozen dataclass, for Python and the command line.

    @dataclass(frozen=True)
    class Settings:
        steps: int = option(2000, "Steps of the optimisation.", least=1)

`check(settings)` holds the values to what the fields declare; `onnxplain.cli.declared` makes a
command's options of them.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import InputError

_KEY = "onnxplain.option"


@dataclass(frozen=True)
class Declaration:
    """What a field declares beside its type and its default.

    Attributes:
        help: a sentence.
        least: the smallest number allowed.
        choices: the values allowed; empty for any.
        name: on the command line, where it is not the field's.
        short: a letter for it on the command line.
        unset: what None stands for.
        positional: whether it is an argument on the command line, and no option.
    """

    help: str
    least: float | None = None
    choices: tuple[str, ...] = ()
    name: str | None = None
    short: str | None = None
    unset: str | None = None
    positional: bool = False


def argument(help: str) -> Any:
    """A dataclass field without a default, which is an argument on the command line."""
    return dataclasses.field(metadata={_KEY: Declaration(help, positional=True)})


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    choices: Collection[str] = (),
    name: str | None = None,
    short: str | None = None,
    unset: str | None = None,
) -> Any:
    """A dataclass field with a `Declaration`."""
    declaration = Declaration(help, least, tuple(choices), name, short, unset)
    return dataclasses.field(default=default, metadata={_KEY: declaration})


def declared(kind: type) -> dict[str, Declaration]:
    """The declarations of a dataclass by field; fields made otherwise are left out."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata[_KEY] for field in fields if _KEY in field.metadata}


def documented(kind: type, indent: int = 8) -> str:
    """The fields of a dataclass as the arguments in a docstring, each a line or more."""
    wrapper = textwrap.TextWrapper(100 - indent, subsequent_indent="    ", break_on_hyphens=False)
    fields = declared(kind).items()
    lines = [line for name, field in fields for line in wrapper.wrap(f"{name}: {field.help}")]
    return f"\n{' ' * indent}".join(lines)


def check(options: Any) -> None:
    """Hold an instance to what the fields of its dataclass declare.

    Raises:
        InputError: a number below the smallest allowed, or a value that is none of the choices.
    """
    for name, declaration in declared(type(options)).items():
        value = getattr(options, name)
        if value is None:
            continue
        if declaration.least is not None and not value >= declaration.least:
            raise InputError(f"{name} must be at least {declaration.least}, not {value}")
        if declaration.choices and value not in declaration.choices:
            raise InputError(f"{name} is one of {', '.join(declaration.choices)}, not {value!r}")
