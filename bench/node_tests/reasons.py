"""Why an operator has tests without a rule, or without a derivative."""

from __future__ import annotations

_OPTIMISER = "a step of training: it changes weights, and no forward pass has it"
_TRAINING = (
    "in training mode only: a network is explained as it answers; export it in evaluation mode"
)
_STEPS = "a sum of steps: constant wherever it is differentiable"

NO_NETWORK: dict[str, str] = {
    "Adagrad": _OPTIMISER,
    "Adam": _OPTIMISER,
    "Momentum": _OPTIMISER,
    "BatchNormalization": _TRAINING,
    "Dropout": _TRAINING,
}
"""Operator → why what is refused of it is part of no network in use."""

NO_DERIVATIVE: dict[str, str] = {
    "Binarizer": _STEPS,
    "TreeEnsemble": _STEPS,
    "MelWeightMatrix": "its inputs of floats are edges of bands, which it rounds to whole bins",
    "Reshape": "of no elements",
}
"""Operator → why nothing flows."""

WITHOUT_A_RULE: dict[str, str] = {
    "AffineGrid": (
        "spelled out by ONNX's own function, which chooses between two ranks at run time: ONNX's "
        "shape inference finds none; the operator itself has its rule"
    ),
    "ArrayFeatureExtractor": "of ai.onnx.ml 1, in a file that ONNX's version converter cannot read",
    "OptionalGetElement": "optional values; no image passes through one",
    "Range": (
        "spelled out as a Loop whose number of rounds follows from the floats that are "
        "differentiated; the operator itself has its rule"
    ),
    "Resize": "it keeps the aspect ratio and rounds a size up, which no scale gives",
    "Scan": "of opset 8, which has another form: with the batch, and the lengths of sequences",
}
"""Operator → why what is refused of it has no rule, though it has a derivative."""
