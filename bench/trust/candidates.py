"""What is compared: methods, with a temperature or an estimator where they have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxplain.errors import SourceError
from onnxplain.export import export

_SMOOTHGRAD = {"estimator": "smoothgrad", "parameters": {"samples": 5}}
_INTEGRATED = {"estimator": "integrated-gradients", "parameters": {"steps": 10}}

CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "excitation, T = 0.3": {"method": "excitation", "temperature": 0.3},
    "excitation, T = 1": {"method": "excitation", "temperature": 1.0},
    "smoothgrad of excitation, T = 1": {
        **{"method": "excitation", "temperature": 1.0},
        **_SMOOTHGRAD,
    },
    "semantic": {"method": "semantic"},
    "gradient": {"method": "gradient"},
    "smoothgrad": {"method": "gradient", **_SMOOTHGRAD},
    "integrated-gradients": {"method": "gradient", **_INTEGRATED},
    **{
        name: {"method": name}
        for name in (
            *("input-x-gradient", "guided", "deconvnet"),
            *("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam"),
            *("guided-gradcam", "lrp-zplus", "lrp-epsilon-plus", "lrp-epsilon-alpha2-beta1"),
            *("scorecam", "ablationcam"),
        )
    },
}
"""Options of `onnxplain.export`, by the names in the table."""

SLOW = ("scorecam", "ablationcam")
"""They ask the network hundreds of times, and are left to the small one."""


def written(
    source: Any,
    folder: Path,
    slow: bool,
    settings: Mapping[str, Any],
    progress: Callable[[int, int], object],
) -> dict[str, Path]:
    """The candidates' graphs of a network; without those for which it has not what they need.

    Args:
        folder: what is in it is not made again.
        slow: with the slow ones.
        settings: of the export besides.
        progress: called with how many of them are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = [name for name in CANDIDATES if slow or name not in SLOW]
    made = {}
    for done, name in enumerate(asked, 1):
        path = folder / f"{name}.onnx"
        try:
            if not path.is_file():
                export(source, path, **CANDIDATES[name], **settings)
            made[name] = path
        except SourceError:
            pass
        progress(done, len(asked))
    return made
