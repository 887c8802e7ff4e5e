"""Feature visualisation (VITAL): what does a neuron look for? `onnxplain.visualize`."""

from onnxplain.vital.search.run import top_images
from onnxplain.vital.search.top_images import TopImages

__all__ = ["TopImages", "top_images"]
