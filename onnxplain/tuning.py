"""`--temperature auto`: export with a live temperature and tune it on photographs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxplain.runtime import load
from onnxplain.runtime.tune import Tuning, tune


def tune_source(
    source: Any,
    images: Sequence[str | os.PathLike[str]],
    *,
    classes: int = 6,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Tuning:
    """Tune a network that `onnxplain.export` takes, with its `options`, or a live explain graph.

    Raises:
        SourceError, InputError, BackendError: as `onnxplain.export`, `load` and `tune` do.
    """
    if str(source).endswith(".explain.onnx"):
        return tune(load(source), list(images), classes=classes, progress=progress)
    from onnxplain.export.pipeline import export

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.explain.onnx"
        export(source, path, live_temperature=True, step=True, **options)
        return tune(load(path), list(images), classes=classes, progress=progress)
