"""Who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from onnxplain.serve.refusal import Refusal

_BEARER = HTTPBearer(auto_error=False, description="The token that the service was started with.")


def access(token: str | None) -> Callable[..., None]:
    """A dependency that lets in whoever has the token, or everybody if the token is None.

    It raises Refusal with status 401.
    """
    if token is None:
        return lambda: None
    expected = token.encode()

    def check(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if sent is None or not hmac.compare_digest(sent.credentials.encode(), expected):
            refusal = Refusal(401, "send the token: Authorization: Bearer …", "unauthorised")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            raise refusal

    return check
