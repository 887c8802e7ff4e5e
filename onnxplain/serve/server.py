"""The process: sockets, TLS, signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import warnings
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import uvicorn

from onnxplain.errors import InputError
from onnxplain.serve import log
from onnxplain.serve.app import create_app
from onnxplain.serve.connections import Connection, handshakes, listen, url
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Settings

KEEP_ALIVE = 75
"""How many seconds an idle connection is kept; more than the 60 usual in load balancers."""

_NOTICE = 1.0
"""For how many seconds after SIGTERM new connections are accepted, until others notice."""

_OTHER_FILES = 256
"""Files open besides the clients' connections: models, libraries, the log, new connections."""


class Server(uvicorn.Server):
    """uvicorn's server, which announces its end before it stops accepting connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and end.

        For a moment everything is still answered, with `Connection: close`, so that load balancers
        see `/ready` fail and clients leave. Then nothing new is accepted, and connections close:
        those on which something is asked, after its answer (`Connection.shutdown`).
        """
        self._service.draining = True
        log.event("draining", connections=len(self.server_state.connections))
        await asyncio.sleep(_NOTICE)
        made = [connection for listener in sockets or [] for connection in _accept_all(listener)]
        taken = asyncio.gather(*map(self._take, made), return_exceptions=True)
        for server in self.servers:
            server.close()
        await handshakes()
        self.servers.clear()  # from Python 3.12 on they wait for the others, too
        await super().shutdown(sockets)
        taken.cancel()
        log.event("ended")

    async def _take(self, connection: socket.socket) -> None:
        """Accept a connection as uvicorn does."""
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
    """Connections that the system has already made; closing the listener would reset them."""
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
    """Answer requests until SIGTERM or SIGINT, and then those accepted before.

    Args:
        settings: the service's.
        host: the address to listen on.
        port: 0 for any that is free; the log says which.
        certificate, key: for TLS, PEM; None for plain HTTP.
        log_level: the least severe level that is logged on standard error.

    Raises:
        BackendError: a file is not an explain graph.
        InputError: the address, the certificate or the key cannot be used.
        KeyboardInterrupt: it was SIGINT.
    """
    warnings.filterwarnings(
        "ignore", module="PIL"
    )  # about clients' images, which it can read or not
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
    warn_if_open(listener, settings.token)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it is done
    Server(config, service).run([listener])


def warn_if_open(listener: socket.socket, token: str | None) -> None:
    """Log a warning where other machines may ask, and no token is asked for."""
    if token is None and not ip_address(listener.getsockname()[0]).is_loopback:
        log.event("open to everybody", level=log.WARNING, advice="set ONNXPLAIN_TOKEN")


def allow_files(wanted: int) -> None:
    """Allow this process that many open files and sockets, or as many as the system permits."""
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
