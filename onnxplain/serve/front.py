"""What a browser sees at `/`: the page of `onnxplain web`, or else the API's documentation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from onnxplain.errors import OnnxplainError
from onnxplain.serve import log
from onnxplain.serve.settings import Settings


class Front:
    """An ASGI application for what no route is for.

    The page is one that was written before (`settings.site`), or one of the first model that
    browsers can run, written when somebody first asks. That is done only where nothing has to be
    downloaded for it, and where no token is asked for, since the page brings the model along.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = TemporaryDirectory(prefix="onnxplain-site-")
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
        folder = Path(self._folder.name) / "site"
        for name, model in self._settings.models.items():
            try:
                write_site(model, folder)
            except OnnxplainError as error:  # not of a kind that browsers run
                log.event("no page", model=name, error=str(error))
            else:
                return folder
        return None


async def _documentation(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] != "/":
        raise HTTPException(404)
    await RedirectResponse("/docs")(scope, receive, send)
