"""Feature visualisation (VITAL): what does a neuron look for? `onnxplain.visualize`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxplain.vital.search.run import top_images
    from onnxplain.vital.search.top_images import TopImages

__all__ = ["TopImages", "top_images"]

_HOMES = {"TopImages": "top_images", "top_images": "run"}


def __getattr__(name: str) -> Any:  # imported when first used: the command line needs less
    if name in _HOMES:
        return getattr(import_module(f"onnxplain.vital.search.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxplain.vital' has no attribute {name!r}")
