"""Where the runtimes keep what they compiled, from one time to the next."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/onnxplain/KIND`, or the same under `~/.cache`; always safe to delete."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "onnxplain" / kind
