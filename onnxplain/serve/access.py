"""Who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from onnxplain.serve.refusal import Refusal
from onnxplain.serve.settings import Settings

_BEARER = HTTPBearer(auto_error=False, description="The token that the service was started with.")


def named(settings: Settings) -> dict[str, Any]:
    """The models' names for the description of the API; none where a token keeps them."""
    return {"enum": list(settings.models)} if settings.token is None else {}


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
