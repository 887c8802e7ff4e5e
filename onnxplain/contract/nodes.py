"""Nodes that ONNX does not allow, and that end the process of the libraries that meet them.

Tried with onnx 1.23 (shape inference) and ONNX Runtime 1.31 (sessions).
"""

from __future__ import annotations

_VARIADIC = {"Concat", "Einsum", "Max", "Mean", "Min", "SequenceConstruct", "Sum"}
"""Operators of any number of inputs, of which none may be left out."""


def forbidden(
    operator: str, domain: str, left_out: bool, outputs: int, said: int | None
) -> str | None:
    """What is wrong with a node, in words; None for nothing.

    Args:
        operator, domain: what it calls.
        left_out: whether one of its inputs has no name.
        outputs: how many it has.
        said: its attribute `num_outputs`, if it has that.
    """
    if domain not in ("", "ai.onnx"):
        return None
    if operator == "Split" and said not in (None, outputs):
        return f"a Split has {outputs} outputs, and says {said}"
    if operator in _VARIADIC and left_out:
        return f"an input of {operator} is left out"
    return None
