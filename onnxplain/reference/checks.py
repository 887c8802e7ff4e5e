"""What a verification found: figures, each beside the bound that it must keep."""

from __future__ import annotations

from dataclasses import dataclass

from onnxplain.reference.parity import Parity


@dataclass(frozen=True)
class Check:
    """One figure of a verification.

    Attributes:
        what: what was compared: "logits", "pullback", …
        cosine: to what it should be; the least of the images' where runtimes are compared.
        relative_error: ‖found − right‖ ÷ ‖right‖; of finite differences, the ratio of medians; None
            where runtimes are compared.
        max_abs: the largest difference; None likewise.
        bound: what was asked for, in words.
        passed: whether that is so.
    """

    what: str
    cosine: float
    relative_error: float | None
    max_abs: float | None
    bound: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """What was compared with what, and how it went.

    Attributes:
        against: what was compared with what, in words.
        images: on how many images.
        checks: one for each output, and for each second look.
        notes: what could not be compared, and why.
    """

    against: str
    images: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)


def by_error(what: str, parity: Parity, limit: float) -> Check:
    bound, passed = f"relative error ≤ {limit:.2g}", parity.relative_l2 <= limit
    return Check(what, parity.cosine, parity.relative_l2, parity.max_abs, bound, passed)


def by_cosine(what: str, parity: Parity, least: float) -> Check:
    bound, passed = f"cosine ≥ {least:g}", parity.cosine >= least
    return Check(what, parity.cosine, parity.relative_l2, parity.max_abs, bound, passed)
