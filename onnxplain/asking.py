"""What is wrong with an export's arguments, told before anything heavy is imported."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxplain.contract.combinations import combined
from onnxplain.contract.names import check_names
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.extras import explained
from onnxplain.files import writable
from onnxplain.networks import FILES, canonical, require_for
from onnxplain.options import by_keyword, check_types
from onnxplain.reading import unreadable


def check_asked(source: Any, path: str | os.PathLike[str] | None, options: ExportOptions) -> None:
    """Hold an export's arguments to what there is.

    Args:
        path: the file to write; None where nothing is written at a place of the user's.

    Raises:
        InputError: an option of another type, or a path that cannot be written.
        SourceError: no network, method, estimator, objective, rule or parameter of that name, or no
            such file.
        MissingPackageError: a package that the source needs is not installed.
    """
    check_types(options)
    check_names(options)
    combined(options)
    if path is not None:
        writable(path, source)
    check_source(source)


def check_source(source: Any) -> None:
    """
    Raises:
        SourceError: no network of that name, or no such file.
        MissingPackageError: a package that the source needs is not installed.
    """
    require_for(source)
    if isinstance(source, str | os.PathLike):
        if Path(source).suffix in FILES:
            if (problem := unreadable(source)) is not None:
                raise SourceError(problem)
        elif not Path(source).exists():
            canonical(os.fspath(source))


@by_keyword(ExportOptions)
def export(source: Any, path: str | os.PathLike[str], options: ExportOptions) -> None:
    check_asked(source, path, options)


class Export(ModuleType):
    """`onnxplain.export` until it is imported, which takes seconds: when a call that may succeed,
    or something that it holds, is first asked for."""

    def __call__(self, source: Any, path: Any, *args: Any, **options: Any) -> Any:
        export(source, path, *args, **options)
        return _package()(source, path, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(_package(), name)

    def __getattribute__(self, name: str) -> Any:  # which modules have of their own: None
        return _package().__doc__ if name == "__doc__" else super().__getattribute__(name)

    def __dir__(self) -> list[str]:
        return dir(_package())


def _package() -> Any:
    """
    Raises:
        MissingPackageError: it needs packages that are not installed.
    """
    with explained():
        return import_module("onnxplain.export")
