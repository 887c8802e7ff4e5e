"""Why an operator has tests without a rule, without a derivative, or undecided."""

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
}
"""Operator → why nothing flows."""

UNDECIDABLE: dict[str, str] = {
    "MaxUnpool": (
        "its indices are those of a result of another size than the test asks for: ONNX Runtime "
        "leaves this test out, and evaluators part (onnx/onnx#5741)"
    ),
}
"""Operator → why differences do not decide a test of it."""
