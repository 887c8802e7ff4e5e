"""Feature visualisation (VITAL): what does a neuron look for? `onnxplain.visualize`."""

from onnxplain.vital.search import top_images
from onnxplain.vital.table import TopImages

__all__ = ["TopImages", "top_images"]
