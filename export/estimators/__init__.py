"""The estimators: at which inputs a rule is asked, one file per family."""

from onnxplain.export.estimators import noise, paths  # noqa: F401  each registers its own
from onnxplain.export.estimators.estimator import (
    ESTIMATORS,
    Estimator,
    get_estimator,
    register_estimator,
)

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "get_estimator",
    "register_estimator",
]
