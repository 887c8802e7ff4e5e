"""Why a request is not answered with an explanation."""

from __future__ import annotations

import math

_LONGEST_RETRY = 60  # seconds


class Refusal(Exception):  # noqa: N818  (as starlette's HTTPException)
    """A request that is refused, with the status and the sentence that its client gets.

    Args:
        status: of HTTP.
        message: the cause and what to do about it; nothing of an image's content.
        reason: one word, for the metrics.
        retry_after: seconds after which to try again; of a 503 only.
    """

    def __init__(
        self, status: int, message: str, reason: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            whole = math.ceil(min(max(retry_after, 1), _LONGEST_RETRY))
            self.headers["Retry-After"] = str(whole)


def malformed(message: str) -> Refusal:
    return Refusal(400, message, "malformed")


def too_large(message: str) -> Refusal:
    return Refusal(413, message, "too-large")


def unusable(message: str) -> Refusal:
    """Well formed, but no image, target or temperature of this model."""
    return Refusal(422, message, "unusable")


def overloaded(message: str, retry_after: float) -> Refusal:
    return Refusal(503, message, "overloaded", retry_after)
