"""An explain graph in, explanations out. Imports numpy, onnxruntime and Pillow alone."""

from onnxplain.runtime.ascent import Accentuation, accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.images import find_images, load_image
from onnxplain.runtime.loading import load
from onnxplain.runtime.sessions import Backend, open_backend

__all__ = [
    "Accentuation",
    "Backend",
    "Explainer",
    "Explanation",
    "accentuate",
    "find_images",
    "load",
    "load_image",
    "open_backend",
]
