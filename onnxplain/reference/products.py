"""Which methods' answers a method multiplies."""

from __future__ import annotations

NAMED = {"guided-gradcam": ("guided", "gradcam")}
"""Those that the literature has a name for."""


def factors_of(method: str) -> list[str]:
    """The names of its factors, its own where it is no product."""
    return [factor for name in method.split("*") for factor in NAMED.get(name, (name,))]
