"""Find a network's temperature: export it with a live one, try several on photographs, draw."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.asking import check_asked
from onnxplain.contract.explain import METHOD, Metadata
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import BackendError
from onnxplain.files import replacing, scratch
from onnxplain.runtime import load
from onnxplain.runtime.inputs.objective import on_photographs
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.tune import Tuning, tune


def tune_source(
    source: Any,
    images: Sequence[str | os.PathLike[str]],
    options: ExportOptions,
    *,
    classes: int = 6,
    progress: Callable[[int], None] | None = None,
    read: Callable[[Metadata], Mapping[str, Any]] = lambda metadata: {},
) -> Tuning:
    """Tune a network that `onnxplain.export` takes, or a live explain graph.

    Args:
        options: of the export, but for how the temperature is given and what is beside the
            pullback; without a meaning for an explain graph.
        read: what the objective takes besides, boxes in pixels of the photographs, once its file
            is there.

    Raises:
        SourceError, InputError, BackendError: as `onnxplain.export`, `load` and `tune` do.
    """

    def tuned(path: str | os.PathLike[str]) -> Tuning:
        explainer = load(path)
        given = on_photographs(explainer.metadata, read(explainer.metadata), images)
        return tune(explainer, list(images), classes=classes, progress=progress, inputs=given)

    if _explains(source):
        return tuned(source)
    check_asked(source, None, options)
    from onnxplain.export import export

    with scratch() as folder:
        path = folder / "live.explain.onnx"
        export(source, path, **vars(_live(options)))
        return tuned(path)


def _explains(source: Any) -> bool:
    """Whether it is the file of an explain graph."""
    if not isinstance(source, str | os.PathLike) or Path(source).suffix != ".onnx":
        return False
    with suppress(BackendError):  # which `export` refuses in its own words
        return METHOD in read_metadata(Path(source))
    return False


def _live(options: ExportOptions) -> ExportOptions:
    """What to export for tuning: a live temperature and the step, for one target."""
    return replace(
        options,
        live_temperature=True,
        step=True,
        unroll=None,
        multi_target=False,
        kernels=False,
        progress=lambda stage: None,
    )


def plot(tuning: Tuning, path: Path, title: str) -> None:
    """Draw the curves of a tuning against the temperature, the one to take marked.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        InputError: the path cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")  # files only, no window
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(
        2, 1, sharex=True, figsize=(7, 6), layout="constrained"
    )
    T = tuning.temperatures
    upper.plot(T, tuning.gain, "o-", color="#b5361c", label=f"median gain of the {tuning.scalar}")
    upper.set_ylabel(f"gain of the {tuning.scalar}")
    upper.axhline(0, color="#999999", linewidth=0.8)
    lower.plot(T, tuning.raised, "o-", color="#1a1a1a", label=f"pairs whose {tuning.scalar} rose")
    lower.plot(T, tuning.shift_stability, "s--", label="stability under a shift of 2 pixels")
    lower.plot(T, tuning.noise_stability, "^--", label="stability under noise")
    if np.isfinite(tuning.sensitivity).all():
        lower.plot(T, tuning.sensitivity, "d:", label="sensitivity to the class")
    lower.set(xscale="log", xlabel="temperature")
    lower.set_xticks(
        ticks := [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3], [f"{t:g}" for t in ticks], minor=False
    )
    lower.minorticks_off()
    for axes in (upper, lower):
        axes.axvline(tuning.temperature, color="#2a7f3f", linewidth=1.5, alpha=0.7)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
    figure.suptitle(f"{title}: T = {tuning.temperature:.2g}, {tuning.pairs} pairs")
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130)
    pyplot.close(figure)
