"""onnxplain: a compiler from a network to a network that explains itself.

    import onnxplain
    onnxplain.export("resnet50", "resnet50.explain.onnx")
    explanation = onnxplain.load("resnet50.explain.onnx")("cat.jpg")
    explanation.save("why.png", style="grid")

`export`, `differentiate` and `visualize` need the extra `onnxplain[export]` (for `.onnx` files) or
`onnxplain[torch]`; `load` and what it returns need numpy, onnxruntime and Pillow alone. Each part
is imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxplain.asking import Export
from onnxplain.comparison import COMPARISONS, OUTPUT_COMPARISONS
from onnxplain.contract.explain import VALUES
from onnxplain.errors import OnnxplainError
from onnxplain.extras import explained

if TYPE_CHECKING:
    from onnxplain.export import module as export
    from onnxplain.export.differentiate import differentiate
    from onnxplain.reference.verification import verify
    from onnxplain.runtime import Explainer, Explanation, accentuate, load
    from onnxplain.version import __version__
    from onnxplain.vital.visualize import visualize

__all__ = [
    "Explainer",
    "Explanation",
    "OnnxplainError",
    "__version__",
    "accentuate",
    "differentiate",
    "export",
    "load",
    "verify",
    "visualize",
]

_HOMES = {
    "differentiate": "onnxplain.export.differentiate",
    "verify": "onnxplain.reference.verification",
    "__version__": "onnxplain.version",
    "visualize": "onnxplain.vital.visualize",
    **dict.fromkeys(["Explainer", "Explanation", "accentuate", "load"], "onnxplain.runtime"),
}


def __getattr__(name: str) -> Any:
    with explained():
        if name == "export":
            return Export("onnxplain.export")
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'onnxplain' has no attribute {name!r}")


def _compare(file: Path, original: Any, input: str | None) -> str | None:
    from onnxplain.reference.logits import compare
    from onnxplain.reference.values import compare_values
    from onnxplain.runtime.onnx_file import read_metadata

    if VALUES in read_metadata(file):
        return compare_values(file, original)
    return compare(file, original, input)


def _compare_outputs(file: Path, source: Path) -> str | None:
    from onnxplain.reference.outputs import compare

    return compare(file, source)


COMPARISONS.append(_compare)
OUTPUT_COMPARISONS.append(_compare_outputs)


def __dir__() -> list[str]:
    return sorted(__all__)
