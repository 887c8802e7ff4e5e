"""Nodes that ONNX does not allow, and that end the process of the libraries that meet them.

Tried with onnx 1.23 (shape inference) and ONNX Runtime 1.31 (sessions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_VARIADIC = {"Concat", "Einsum", "Max", "Mean", "Min", "SequenceConstruct", "Sum"}
"""Operators of any number of inputs, of which none may be left out."""

_NEED_A_TYPE = {"DictVectorizer", "LabelEncoder", "RegexFullMatch", "TreeEnsemble"}
"""Operators whose shape inference reads its input's type unasked, known or not. None has a use
where numbers are explained: they map strings and dictionaries, and a tree has no slope."""

_LARGEST = 2**31 - 1  # libraries multiply sizes, and divide by what is left of the product
_ANY_NUMBER = {"starts", "ends", "value_int", "value_ints"}
"""Attributes that may be larger: an end that stands for all, and constants."""


def forbidden(
    operator: str,
    domain: str,
    left_out: bool,
    outputs: int,
    attributes: Mapping[str, Sequence[int]],
) -> str | None:
    """What is wrong with a node, in words; None for nothing.

    Args:
        operator, domain: what it calls.
        left_out: whether one of its inputs has no name.
        outputs: how many it has.
        attributes: those that are integers.
    """
    if operator in _NEED_A_TYPE and domain in ("", "ai.onnx", "ai.onnx.ml"):
        return f"{operator} has no derivative, and its shape inference cannot be relied on"
    if domain not in ("", "ai.onnx"):
        return None
    said = attributes.get("num_outputs", [outputs])
    if operator == "Split" and [*said] != [outputs]:
        return f"a Split has {outputs} outputs, and says {said[0]}"
    if operator in _VARIADIC and left_out:
        return f"an input of {operator} is left out"
    for name, numbers in attributes.items():
        if name not in _ANY_NUMBER and any(abs(number) > _LARGEST for number in numbers):
            return f"{name} of {operator} is {', '.join(map(str, numbers))}"
    return None
