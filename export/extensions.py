"""Packages that extend onnxplain: they register rules and methods when they are imported."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points

from onnxplain.contract.names import EXTENSIONS


def load_extensions() -> None:
    """Import what installed packages name; one that fails is a warning, and the rest goes on."""
    for entry in entry_points(group=EXTENSIONS):
        try:
            entry.load()
        except Exception as error:
            warnings.warn(
                f"the extension {entry.name!r} ({entry.value}) of onnxplain cannot be imported: "
                f"{error!r}",
                stacklevel=2,
            )
