"""The table of rules that the sweep looks operators up in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from onnxplain.export.autodiff import Rule

VJPS: dict[str, Rule] = {}
"""Operator name (`"domain::Name"` outside the standard domain) → rule of the ordinary gradient."""

AnyRule = TypeVar("AnyRule", bound=Rule)


def register_vjp(*operators: str) -> Callable[[AnyRule], AnyRule]:
    """Register the rule of one or several operators: `@register_vjp("Relu")` above it.

    See `onnxplain.export.autodiff` for what a rule takes and returns. A later rule replaces an
    earlier one.
    """

    def register(rule: AnyRule) -> AnyRule:
        VJPS.update(dict.fromkeys(operators, rule))
        return rule

    return register
