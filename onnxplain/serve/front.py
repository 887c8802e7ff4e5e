"""What a browser sees at `/`: the page of `onnxplain web`, or the API's documentation."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import ExitStack
from pathlib import Path

from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from onnxplain.errors import OnnxplainError
from onnxplain.files import scratch
from onnxplain.serve import log
from onnxplain.serve.settings import Settings


class Front:
    """An ASGI application for paths without a route.

    The page is one written earlier (`settings.site`), or one for the first model that browsers can
    run, written when it is first requested. The latter happens only if nothing has to be downloaded
    for it and no token is required, because the page contains the model.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        stack = ExitStack()
        self._folder = stack.enter_context(scratch())
        weakref.finalize(self, stack.close)
        self._writing = asyncio.Lock()
        self._page: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)
        async with self._writing:
            if self._page is None:
                self._page = await asyncio.to_thread(self._find)
        await self._page(scope, receive, send)

    def _find(self) -> ASGIApp:
        site = self._settings.site
        if site is None and self._settings.token is None:
            site = self._write()
        return _documentation if site is None else StaticFiles(directory=site, html=True)

    def _write(self) -> Path | None:
        try:
            from onnxplain.web import write_site
            from onnxplain.web.onnxruntime_web import installed
        except ModuleNotFoundError:  # in a container
            return None
        if not installed():
            return None
        folder = self._folder / "site"
        for name, model in self._settings.models.items():
            try:
                write_site(model, folder)
            except OnnxplainError as error:  # browsers cannot run it
                log.event("no page", model=name, error=str(error))
            else:
                return folder
        return None


async def _documentation(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] != "/":
        raise HTTPException(404)
    await RedirectResponse("/docs")(scope, receive, send)
