"""The application, and what makes a function a command of it."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from onnxplain.cli.console import Notes, err, out, sentence
from onnxplain.errors import OnnxplainError
from onnxplain.extras import explained
from onnxplain.reading import trusted

app = typer.Typer(
    name="onnxplain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Compile a network into a network that explains itself.

One standard ONNX graph: image and target class in, logits [bold]and[/] the picture of why out.

\b
    onnxplain demo                                   # see it work
    onnxplain export resnet50                        # or a checkpoint, or your .onnx file
    onnxplain explain resnet50.explain.onnx cat.jpg  # explanations/cat.png""",
)

INTERRUPTED = 130

_KEYWORD = re.compile(r"""(?<![\w'"])([a-z]\w*)=(True\b|False\b|\[?'[^']*'\]?|[A-Z]*(?![\w(\[]))""")
"""How errors write an argument: `size=`, `weights=PATH`, `weights='none'`, `live=['relu']`,
`check=False`."""


def commands(command: Any) -> Iterator[Any]:
    """A command, and those of the group that it may be."""
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from commands(one)


@functools.cache
def _flags() -> dict[str, str]:
    """The flags of all commands' options, by the options' names."""
    return {
        option.name: flag
        for command in commands(typer.main.get_command(app))
        for option in command.params
        for flag in option.opts
        if flag.startswith("--")
    }


def with_flags(message: str) -> str:
    """A message in which the arguments that are options of commands are written as those."""

    def as_flag(found: re.Match[str]) -> str:
        if (flag := _flags().get(found[1])) is None:
            return found[0]
        value = found[2].strip("[']").removeprefix("True")
        flag = flag.replace("--", "--no-") if value == "False" else flag
        return f"{flag} {value.removeprefix('False')}".rstrip()

    return _KEYWORD.sub(as_flag, message)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become a sentence and an exit status."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with explained():
                function(*args, **kwargs)
        except OnnxplainError as error:
            said = sentence(with_flags(str(error)))
            err.print(f"[bold red]error:[/] {said}", soft_wrap=True, highlight=False)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return run


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a guarded command."""
    run = guarded(function)
    alone = ("demo", "doctor", "methods", "bench")  # which need no argument
    app.command(no_args_is_help=function.__name__ not in alone)(run)
    return run


def _version(wanted: bool) -> None:
    if wanted:
        from onnxplain.version import __version__

        out.print(f"onnxplain {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Load files with which their author can run code: TorchScript, and torch.export's "
            ".pt2.",
        ),
    ] = False,
) -> None:
    before = trusted.set(trust)
    context.call_on_close(lambda: trusted.reset(before))
    logger, notes = logging.getLogger("onnxplain"), Notes(with_flags)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(notes)
    context.call_on_close(lambda: logger.removeHandler(notes))
    context.call_on_close(lambda: logger.setLevel(level))
