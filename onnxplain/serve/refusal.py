"""Why a request gets no explanation."""

from __future__ import annotations

import math

_LONGEST_RETRY = 60  # seconds


class Refusal(Exception):  # noqa: N818  (as starlette's HTTPException)
    """A refused request, with the status and the sentence that the client gets.

    Args:
        status: HTTP's.
        message: the cause and what to do about it; nothing about an image's content.
        reason: one word, for the metrics.
        retry_after: seconds after which to try again; only for a 503.
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
    """For requests that are well formed, but not an image, target or temperature for this model."""
    return Refusal(422, message, "unusable")


def overloaded(message: str, retry_after: float) -> Refusal:
    return Refusal(503, message, "overloaded", retry_after)
