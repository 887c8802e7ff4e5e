"""What compares a file with the network that it was exported from, before it takes its place.

`export` runs no graph, and imports nothing that does: `onnxplain` puts the comparison here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Comparison: TypeAlias = Callable[[Path, Any, str | None], str | None]
"""Of the file, of what it was made of (the path of an ONNX file, or what PyTorch runs), and of the
name of the image input there: what is to be noted, as that they cannot be compared, or None. It
raises a SourceError if they differ."""

COMPARISONS: list[Comparison] = []
"""Those that every export is put to, unless it is told `check=False`."""

OUTPUT_COMPARISONS: list[Callable[[Path, Path], str | None]] = []
"""The same for files of `differentiate`: of the file, and of the file that it was made of."""
