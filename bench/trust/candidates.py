"""What is compared: methods, with a temperature or an estimator where they have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxplain.errors import SourceError
from onnxplain.export import export


@dataclass(frozen=True)
class Candidate:
    """
    Attributes:
        name: as the table calls it.
        method: and `options`, as `onnxplain.export` takes them.
        slow: whether it asks the network hundreds of times, and is left to the small one.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False

    def write(self, source: Any, folder: Path, settings: Mapping[str, Any]) -> Path | None:
        """The explain graph; None where the network has not what the method needs."""
        path = folder / f"{self.name}.onnx"
        try:
            export(source, path, method=self.method, **settings, **self.options)
        except SourceError:
            return None
        return path


def _of(method: str, **options: Any) -> Candidate:
    return Candidate(method, method, options)


CANDIDATES: Sequence[Candidate] = (
    *(Candidate(f"excitation, T = {T:g}", "excitation", {"temperature": T}) for T in (0.3, 1.0)),
    _of("semantic"),
    _of("gradient"),
    _of("guided"),
    _of("deconvnet"),
    _of("input-x-gradient"),
    Candidate(
        "integrated-gradients",
        "gradient",
        {"estimator": "integrated-gradients", "parameters": {"steps": 10}},
    ),
    Candidate("smoothgrad", "gradient", {"estimator": "smoothgrad", "parameters": {"samples": 5}}),
    Candidate(
        "smoothgrad of excitation",
        "excitation",
        {"temperature": 1.0, "estimator": "smoothgrad", "parameters": {"samples": 5}},
    ),
    *map(_of, ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam")),
    _of("guided-gradcam"),
    _of("lrp-zplus"),
    _of("lrp-epsilon-plus"),
    _of("lrp-epsilon-alpha2-beta1"),
    Candidate("scorecam", "scorecam", slow=True),
    Candidate("ablationcam", "ablationcam", slow=True),
)
