"""The application: routes, how errors are answered, and a log line for each request."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from onnxplain.errors import OnnxplainError
from onnxplain.serve import log
from onnxplain.serve.front import Front
from onnxplain.serve.kserve import kserve_routes
from onnxplain.serve.origin import OwnOrigin
from onnxplain.serve.refusal import Refusal
from onnxplain.serve.routes import routes
from onnxplain.serve.service import Service
from onnxplain.version import __version__

_REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods counted by name. A client may send any, and the metrics would remember them all."""


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.preload()
        yield
        service.close()

    app = FastAPI(
        title="onnxplain",
        version=__version__,
        summary="Explanations of what image classifiers see.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(routes(service))
    app.include_router(kserve_routes(service))
    app.router.default = Front(service.settings)  # a mount would hide that other methods get 405
    _errors(app, service)
    app.add_middleware(OwnOrigin, settings=service.settings, metrics=service.metrics)
    app.add_middleware(Recorded, service=service)
    return app


def _errors(app: FastAPI, service: Service) -> None:
    """Turn exceptions into `{"error": …}`."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        service.metrics.refused.labels(refusal.reason).inc()
        return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)

    @app.exception_handler(OnnxplainError)
    async def failed(request: Request, error: OnnxplainError) -> Response:
        log.event("failed", level=log.ERROR, error=str(error))
        return JSONResponse({"error": str(error)}, 500)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": error.errors()[0]["msg"]}, 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        said = f"{error.detail}: /docs lists what can be asked, as POST /v1/models/NAME:explain"
        return JSONResponse({"error": said}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "an internal error; the service's log says more"}, 500)


class Recorded:
    """Middleware that gives each request an id, counts it, times it and logs it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begin, name = time.perf_counter(), _request_id(scope)
        status, size = 500, 0

        async def send_recorded(message: MutableMapping[str, Any]) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (_REQUEST_ID, name.encode())]
                if self._service.draining:
                    message["headers"].append((b"connection", b"close"))
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        finally:
            seconds = time.perf_counter() - begin
            route = getattr(scope.get("route"), "path", "other")
            metrics = self._service.metrics
            method = scope["method"] if route != "other" and scope["method"] in _METHODS else ""
            metrics.requests.labels(route, method, status).inc()
            metrics.seconds.labels(route).observe(seconds)
            log.event(
                "request",
                id=name,
                client=(scope.get("client") or ("", 0))[0],
                method=scope["method"][:20],
                path=scope["path"][:200],
                status=status,
                milliseconds=round(1000 * seconds, 1),
                bytes=size,
            )


def _request_id(scope: Scope) -> str:
    """The client's own id if it can be logged and sent back; otherwise a new one."""
    for key, value in scope["headers"]:
        if key == _REQUEST_ID:
            text: str = value.decode("latin-1")
            if text.isascii() and text.isprintable() and 0 < len(text) <= _LONGEST_ID:
                return text
    return uuid.uuid4().hex
