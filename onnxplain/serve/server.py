"""The process: sockets, TLS, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from onnxplain.errors import InputError
from onnxplain.serve import log
from onnxplain.serve.app import create_app
from onnxplain.serve.connections import Connection, listen, url
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Settings

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept; more than load balancers' usual 60."""

_NOTICE = 1.0
"""Seconds after SIGTERM in which new connections are still taken, until others notice."""

_OTHER_FILES = 256
"""That are open beside the clients' connections: models, libraries, the log, new connections."""

_LINGER = 0.5
"""Seconds after that for the requests that are on their way on connections taken before."""


class Server(uvicorn.Server):
    """uvicorn's, that says it is about to end before it stops taking connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and end.

        For a moment everything is still answered, with `Connection: close`; so load balancers see
        that `/ready` no longer is, and clients leave. uvicorn closes the connections on which no
        request is being answered; by then those in use have had their answer.
        """
        self._service.draining = True
        log.event("draining", connections=len(self.server_state.connections))
        await asyncio.sleep(_NOTICE)
        taken = [self._take(connection) for s in sockets or [] for connection in _accept_all(s)]
        for server in self.servers:
            server.close()
        await asyncio.gather(*taken, return_exceptions=True)
        await asyncio.sleep(_LINGER)
        await super().shutdown(sockets)
        log.event("ended")

    async def _take(self, connection: socket.socket) -> None:
        """What uvicorn does with a connection."""
        config = self.config
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: config.http_protocol_class(
                config=config,  # type: ignore[call-arg]
                server_state=self.server_state,
                app_state=self.lifespan.state,
            ),
            connection,
            ssl=config.ssl,
        )


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """The connections that the system has made already; closing the listener would reset them."""
    accepted = []
    with suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: Path | None = None,
    key: Path | None = None,
    log_level: str = "info",
) -> None:
    """Answer requests until SIGTERM or SIGINT, and then what was accepted before.

    Args:
        settings: of the service.
        host: the address to listen at.
        port: 0 for any that is free; the log says which.
        certificate, key: of TLS, PEM; None for plain HTTP.
        log_level: from which on the log on standard error has what happens.

    Raises:
        BackendError: a file is no explain graph.
        InputError: the address cannot be listened at; the certificate or key cannot be used.
        KeyboardInterrupt: it was SIGINT.
    """
    warnings.filterwarnings("ignore", module="PIL")  # of clients' images, which it reads or not
    service, limits = Service(settings), settings.limits
    cut = service.metrics.cut
    connection = partial(Connection, limits.connections, limits.read_seconds, cut)
    config = uvicorn.Config(
        create_app(service),
        http=cast(Any, connection),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(limits.seconds + limits.read_seconds),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:
        raise InputError(f"the certificate or its key cannot be used: {error}") from error
    listener = listen(host, port)
    log.log_to_stderr(log_level)
    allow_files(limits.connections + _OTHER_FILES)
    where = url(listener, "https" if certificate else "http")
    log.event("listening", url=where, models=list(settings.models))
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it is done
    Server(config, service).run([listener])


def allow_files(wanted: int) -> None:
    """Let this process have so many files and sockets open, or as many as the system lets it."""
    if sys.platform == "win32":  # which has no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if more < wanted:
        log.event("few files", level=log.WARNING, allowed=more, wanted=wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
