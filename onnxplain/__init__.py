"""onnxplain: a compiler from a network to a network that explains itself.

    import onnxplain
    onnxplain.export("resnet50", "resnet50.explain.onnx")
    explanation = onnxplain.load("resnet50.explain.onnx")("cat.jpg")
    explanation.save("why.png", style="grid")

`export` and `visualize` need the extra `onnxplain[export]` (for `.onnx` files) or
`onnxplain[torch]`; `load` and what it returns need numpy, onnxruntime and Pillow alone. Each part
is imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnxplain.errors import OnnxplainError
from onnxplain.version import __version__

if TYPE_CHECKING:
    from onnxplain import export as export
    from onnxplain.runtime import Explainer, Explanation, accentuate, load
    from onnxplain.vital.visualize import visualize

__all__ = [
    "Explainer",
    "Explanation",
    "OnnxplainError",
    "__version__",
    "accentuate",
    "export",
    "load",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name == "export":
        return import_module("onnxplain.export")
    if name == "visualize":
        return import_module("onnxplain.vital.visualize").visualize
    if name in __all__:
        return getattr(import_module("onnxplain.runtime"), name)
    raise AttributeError(f"module 'onnxplain' has no attribute {name!r}")
