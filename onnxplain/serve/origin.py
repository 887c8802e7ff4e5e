"""Which pages and names may ask: what a browser is told to send by a stranger's page is refused."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from onnxplain.serve.metrics import Metrics
from onnxplain.serve.names import name_in
from onnxplain.serve.settings import Settings

_READING = ("GET", "HEAD", "OPTIONS")
_OWN = ("same-origin", "none")  # none: the user's own doing, such as an address typed in


class OwnOrigin:
    """Middleware that refuses a request for another host, or from another site's page.

    A name that leads to this machine is every stranger's to choose (DNS rebinding), so a request
    must name one of the `hosts` of the settings. A page of another site may post a form; browsers
    say so. Where a token is asked for, no page has it, and the second check is left out.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._checks_pages = settings.token is None
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            status, said = problem
            self._metrics.refused.labels("foreign").inc()
            answer = JSONResponse({"error": said}, status)
        await answer(scope, receive, send)

    def _problem(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request is refused: a status and a sentence."""
        headers = Headers(scope=scope)
        if not is_among(headers.get("host", ""), self._hosts):
            return 421, "this service has another name; --allow-host gives it this one too"
        if self._checks_pages and scope["method"] not in _READING and _is_foreign(headers):
            return 403, "pages of other sites may not ask this service"
        return None


def is_among(host: str, hosts: Collection[str] | None) -> bool:
    """Whether a Host header names one of the hosts, at any port; None are all."""
    if hosts is None:
        return True
    return name_in(host) in hosts


def _is_foreign(headers: Headers) -> bool:
    """Whether a page of another origin makes a browser send it, as far as the browser says."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site not in _OWN:
        return True
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
    except ValueError:  # of an origin that is none
        return True
