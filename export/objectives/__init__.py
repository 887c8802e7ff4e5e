"""The objectives: what an explanation is of, one file per kind of network."""

from onnxplain.export.objectives import (  # noqa: F401  each registers its own
    detection,
    embedding,
    segment,
    sequence,
    value,
)
from onnxplain.export.objectives.classifiers import LOGIT
from onnxplain.export.objectives.objective import (
    OBJECTIVES,
    Fit,
    Input,
    Network,
    Objective,
    Output,
    Setting,
    get_objective,
    hold,
    register_objective,
)

__all__ = [
    "LOGIT",
    "OBJECTIVES",
    "Fit",
    "Input",
    "Network",
    "Objective",
    "Output",
    "Setting",
    "get_objective",
    "hold",
    "register_objective",
]
