"""The explanation methods: what each does to the ordinary backward pass, one file per kind."""

from onnxplain.export.methods import (  # noqa: F401  each registers its methods
    baselines,
    cams,
    excitation,
    lrp,
    products,
    rollout,
    semantic,
    transformer_lrp,
)
from onnxplain.export.methods.method import (
    METHODS,
    Method,
    register_method,
)
from onnxplain.export.methods.products import get_method

__all__ = ["METHODS", "Method", "get_method", "register_method"]
