"""Options declared once: the fields of a frozen dataclass, for Python and the command line.

    @dataclass(frozen=True)
    class Settings:
        steps: int = option(2000, "Steps of the optimisation.", least=1)

`check(settings)` holds the values to what the fields declare, `check_types` to their annotations
alone; `onnxplain.cli.declared` makes a command's options of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from onnxplain.errors import InputError

_KEY = "onnxplain.option"


@dataclass(frozen=True)
class Declaration:
    """What a field declares beside its type and its default.

    Attributes:
        help: a sentence.
        least, most: the smallest and the greatest number allowed.
        above: what numbers are greater than.
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
    most: float | None = None
    above: float | None = None


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
    most: float | None = None,
    above: float | None = None,
) -> Any:
    """A dataclass field with a `Declaration`."""
    declaration = Declaration(
        help, least, tuple(choices), name, short, unset, most=most, above=above
    )
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


Options = ParamSpec("Options")
Source = TypeVar("Source", contravariant=True)
Kind = TypeVar("Kind")
Result = TypeVar("Result", covariant=True)


class ByKeyword(Protocol, Generic[Source, Options, Result]):
    """A function of a source and a path, which takes the fields of a dataclass by keyword."""

    def __call__(
        self,
        source: Source,
        path: str | os.PathLike[str],
        *args: Options.args,
        **kwargs: Options.kwargs,
    ) -> Result: ...


def by_keyword(
    kind: Callable[Options, Kind],
) -> Callable[[Callable[[Source, Any, Kind], Result]], ByKeyword[Source, Options, Result]]:
    """Let a function take its options by keyword, and say so to whoever asks for its signature.

    Its docstring has a line `options:`, which becomes those of the fields.
    """

    def decorate(
        function: Callable[[Source, Any, Kind], Result],
    ) -> ByKeyword[Source, Options, Result]:
        @functools.wraps(function)
        def run(source: Source, path: Any, *args: Options.args, **kwargs: Options.kwargs) -> Result:
            try:
                fields.bind(*args, **kwargs)
            except TypeError as error:
                wrong = [name for name in kwargs if name not in fields.parameters]
                close = difflib.get_close_matches(min(wrong, default=""), fields.parameters, 1, 0.8)
                guess = f"; did you mean {close[0]}?" if close else "; options go by keyword"
                raise TypeError(f"{function.__name__}(): {error}{guess}") from None
            return function(source, path, kind(*args, **kwargs))

        own, fields = inspect.signature(function), inspect.signature(kind)
        parameters = [*list(own.parameters.values())[:2], *fields.parameters.values()]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__doc__ = (function.__doc__ or "").replace("options:", documented(kind))  # type: ignore[arg-type]
        return run

    return decorate


Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def also_called(
    **others: str,
) -> Callable[[Callable[Arguments, Returned]], Callable[Arguments, Returned]]:
    """Let a function take an argument by another name too: `@also_called(target="targets")`.

    Raises:
        InputError: when it is called with both.
    """

    def decorate(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            for other in others.keys() & kwargs.keys():
                name = others[other]
                if name in kwargs or name in signature.bind_partial(*args).arguments:
                    raise InputError(f"{name} and {other} are the same: give one of them")
                kwargs[name] = kwargs.pop(other)
            return function(*args, **kwargs)

        return run

    return decorate


def check(options: Any) -> None:
    """Hold an instance to what the fields of its dataclass declare.

    Raises:
        InputError: a value of another type than the field's, a number out of its range, or a value
            that is none of the choices.
    """
    check_types(options)
    for name, declaration in declared(type(options)).items():
        value = getattr(options, name)
        if value is None:
            continue
        if declaration.least is not None and not value >= declaration.least:
            raise InputError(f"{name} must be at least {declaration.least}, not {value}")
        if declaration.above is not None and not value > declaration.above:
            raise InputError(f"{name} must be above {declaration.above}, not {value}")
        if declaration.most is not None and not value <= declaration.most:
            raise InputError(f"{name} must be at most {declaration.most}, not {value}")
        if declaration.choices and value not in declaration.choices:
            raise InputError(f"{name} is one of {', '.join(declaration.choices)}, not {value!r}")


def check_types(options: Any) -> None:
    """Hold the declared fields of a dataclass's instance to their annotations.

    Raises:
        InputError: a value of another type.
    """
    hints = typing.get_type_hints(type(options))
    for name in declared(type(options)):
        check_type(name, getattr(options, name), hints[name])


def check_fields(entry: Any) -> None:
    """Hold every field of a dataclass's instance to its annotation, and so on in those within.

    Raises:
        InputError: a value of another type.
    """
    hints = typing.get_type_hints(type(entry))
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        check_type(field.name, value, hints[field.name])
        several = value.values() if isinstance(value, Mapping) else value
        for one in several if isinstance(value, Mapping | tuple | list) else [value]:
            if dataclasses.is_dataclass(one):
                check_fields(one)


def check_type(name: str, value: Any, hint: Any) -> None:
    """Hold a value to a type: a class, or what `typing` makes of some.

    A float may be any real number and an int any integral one, NumPy's too; True and False are
    neither. A tuple may be any sequence of as many, an array too; a string is no sequence.

    Raises:
        InputError: it is of another type.
    """
    if not _is(value, hint):
        text = " ".join(repr(value).split())
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
        raise InputError(f"{name} must be {_in_words(hint)}, not {text}")


_SHOWN = 60  # characters of a value in a message

_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("True or False", "Trues and Falses"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Callable: ("a function", "functions"),
}
"""What one of a type is called, and several."""

COUNTS = ("no", "one", "two", "three", "four")


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a type."""
    origin, entries = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, one) for one in entries)
    if origin is Mapping:
        key, of = entries
        return isinstance(value, Mapping) and all(
            _is(name, key) and _is(one, of) for name, one in value.items()
        )
    if origin in (tuple, Sequence):
        if not isinstance(value, Sequence):
            value = value.tolist() if hasattr(value, "tolist") else None  # an array
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        several = origin is Sequence or ... in entries
        wanted = entries[:1] * len(value) if several else entries
        return len(value) == len(wanted) and all(map(_is, value, wanted))
    if origin in (int, float):
        number = Integral if origin is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is bool:
        numpy = sys.modules.get("numpy")  # imported already where the value is NumPy's
        return isinstance(value, (bool, getattr(numpy, "bool_", bool)))
    if hasattr(origin, "_fields"):  # a named tuple
        hints = typing.get_type_hints(origin).values()
        return isinstance(value, origin) and all(map(_is, value, hints))
    return callable(value) if origin is Callable else isinstance(value, origin)


def _in_words(hint: Any, of: int = 0) -> str:
    """A type as a message names it: one of it, or where `of` is 1 several; None is not said."""
    origin, entries = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(one, of) for one in entries if one is not types.NoneType)
    if origin is Mapping:
        return f"{_in_words(entries[1], 1)} by name"
    if origin in (tuple, Sequence):
        several = origin is Sequence or ... in entries
        count = "a sequence of" if several else COUNTS[len(entries)]
        return f"{count} {_in_words(entries[0], 1)}"
    name = origin.__name__
    article = "an" if name[0] in "AEIOU" else "a"
    return _WORDS.get(origin, (f"{article} {name}", f"{name}s"))[of]
