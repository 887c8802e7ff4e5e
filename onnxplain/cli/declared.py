"""A command's options, made of the fields that a dataclass declares (`onnxplain.options`)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import typer

from onnxplain.cli.options import as_floats
from onnxplain.errors import InputError
from onnxplain.options import COUNTS, Declaration, declared

Command = Callable[..., None]


def with_options(
    parameter: str,
    kind: type,
    *,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    read: Mapping[str, Callable[[Any, str], Any]] = MappingProxyType({}),
) -> Callable[[Command], Command]:
    """Give a command an option, or an argument, for each declared field of a dataclass.

        @command
        @with_options("settings", Settings)
        def train(folder: Folder, settings: Settings) -> None: ...

    A field that is a tuple of floats is given as numbers with commas between.

    Args:
        parameter: the command's own, which receives the instance of `kind`.
        without: fields that have no option, and keep their default.
        defaults: by field, where the command's default is not the field's.
        read: by field, what makes its value of what the command line gives and the option's name;
            the annotation of its first parameter says what the command line gives.
    """
    fields = {name: d for name, d in declared(kind).items() if name not in without}
    types = typing.get_type_hints(kind) | {name: _read_by(each) for name, each in read.items()}
    given_as = {declaration.name or name: name for name, declaration in fields.items()}
    default_of = {field.name: field.default for field in dataclasses.fields(kind)} | dict(defaults)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if fields[field].positional else default_of[field],
            annotation=_annotation(name, types[field], fields[field]),
        )
        for name, field in given_as.items()
    ]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {}
            for name, field in given_as.items():
                read_by = read[field] if field in read else partial(_value, types[field])
                values[field] = read_by(given.pop(name), _flag(name))
            command(**given, **{parameter: kind(**values)})

        parameters = []
        for each in signature.parameters.values():
            own = each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += options if each.name == parameter else [own]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _annotation(name: str, type_: Any, declaration: Declaration) -> Any:
    """What typer reads a parameter's type, range and help from."""
    if declaration.positional:
        return Annotated[type_, typer.Argument(help=declaration.help)]
    flags = [_flag(name)] if declaration.short or name.endswith("_") else []
    flags += [f"-{declaration.short}"] if declaration.short else []
    if _tuple_of(type_) is not None:
        type_ = str | None
    shown: Any = declaration.unset or True
    return Annotated[
        type_,
        typer.Option(
            *flags,
            min=declaration.least,
            max=declaration.most,
            help=declaration.help,
            show_default=shown,
        ),
    ]


def _tuple_of(type_: Any) -> tuple[Any, ...] | None:
    """The entries' types of a tuple (`float, ...`), also of one that may be None; else None."""
    for one in (type_, *typing.get_args(type_)):
        if typing.get_origin(one) is tuple:
            return typing.get_args(one)
    return None


def _flag(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"  # `except_`: Python keeps the word


def _read_by(read: Callable[..., Any]) -> Any:
    """The type of a function's first parameter."""
    return next(iter(inspect.signature(read, eval_str=True).parameters.values())).annotation


def _value(type_: Any, given: Any, flag: str) -> Any:
    """A field's value of what the command line gave.

    Raises:
        InputError: numbers with commas between are wanted, and this is something else.
    """
    entries = _tuple_of(type_)
    if entries is None:
        return given
    numbers = as_floats(given, flag)
    if numbers is not None and ... not in entries and len(numbers) != len(entries):
        raise InputError(f"{flag} takes {COUNTS[len(entries)]} numbers, not {len(numbers)}")
    return numbers
