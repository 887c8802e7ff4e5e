"""The command `onnxplain serve`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import Precision, Provider, command
from onnxplain.errors import InputError


@command
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Explain graphs or engines: MODEL.explain.onnx, or NAME=MODEL.explain.onnx."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 for all of the machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    provider: Provider = "auto",
    precision: Precision = "float32",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images of one backend call at most. [default: 2 on a processor, else 8]"
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Milliseconds that a call waits for more, while a backend idles."),
    ] = 2.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of one call. [default: 1 on a processor]")
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1, help="Calls of a model at a time. [default: one for each core; 2 on a GPU]"
        ),
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode and draw. [default: half the cores, 2 up]"),
    ] = None,
    loaded: Annotated[
        int, typer.Option(min=1, help="Models in memory; for another, the oldest unused goes.")
    ] = 4,
    preload: Annotated[
        bool, typer.Option("--preload", help="Load them before answering, not when first asked.")
    ] = False,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests in hand; above, 503 with Retry-After.")
    ] = 256,
    max_mib: Annotated[float, typer.Option(min=0.001, help="MiB of a request's body.")] = 16,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Of an image.")] = 25,
    max_images: Annotated[int, typer.Option(min=1, help="Images × targets of a request.")] = 16,
    max_connections: Annotated[int, typer.Option(min=1, help="Open at a time.")] = 1024,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="From a request's arrival to its answer; else 503.")
    ] = 30,
    read_seconds: Annotated[
        float, typer.Option(min=0.1, help="For a client to send a request's head, and its body.")
    ] = 10,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ONNXPLAIN_TOKEN",
            show_envvar=True,
            help="Clients must send it: Authorization: Bearer TOKEN. As an option other users of "
            "the machine can see it; better in the environment.",
        ),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Of TLS, PEM, with its chain.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's, PEM.")] = None,
    site: Annotated[
        Path | None,
        typer.Option(help="A folder of `onnxplain web`, to show at /; not with --token."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Answer requests for explanations over HTTP: its own API, and the KServe v2 protocol.

    Requests that come together are explained in one call of the backend. What is too much is
    refused at once (503, Retry-After), what is too large or too slow too. SIGTERM ends it when all
    that was accepted is answered. The API is described at /docs, metrics are at /metrics, and
    tritonclient.http finds what it knows under /v2.

    \b
        onnxplain serve resnet50.explain.onnx
        curl -F image=@cat.jpg localhost:8000/v1/models/resnet50:explain
        curl -F image=@cat.jpg -F targets=-1 -F targets="tiger cat" -F output=png -o why.png \\
            localhost:8000/v1/models/resnet50:explain
        ONNXPLAIN_TOKEN=… onnxplain serve cnn=resnet50.explain.onnx vit.explain.onnx \\
            --host 0.0.0.0 --certificate cert.pem --key key.pem
    """
    from onnxplain.serve import server
    from onnxplain.serve.settings import (
        MEBIBYTE,
        Batching,
        Limits,
        Running,
        Settings,
        cores,
        spread,
    )

    if log_level not in ("debug", "info", "warning", "error"):
        raise InputError(f"--log-level is debug, info, warning or error, not {log_level!r}")
    if precision == "auto":
        raise InputError("name a precision: `onnxplain explain --precision auto` finds the fastest")
    if key is not None and certificate is None:
        raise InputError("--key goes with --certificate")
    if token == "":
        raise InputError("the token is empty; leave it out to let everybody in")
    threads, calls, images = spread(provider, precision, threads, instances, batch)
    settings = Settings(
        models=_named(models),
        limits=Limits(
            body_bytes=round(max_mib * MEBIBYTE),
            pixels=round(max_megapixels * 1e6),
            images=max_images,
            requests=max_requests,
            connections=max_connections,
            seconds=max_seconds,
            read_seconds=read_seconds,
        ),
        batching=Batching(images, wait / 1000, calls),
        running=Running(
            provider, precision, threads, loaded, preload, decoders or max(2, cores() // 2)
        ),
        token=token,
        site=site,
    )
    server.serve(settings, host, port, certificate, key, log_level)


def _named(models: Iterable[str]) -> dict[str, Path]:
    """Name → file; `resnet50` for `models/resnet50.explain.onnx`."""
    named: dict[str, Path] = {}
    for text in models:
        name, equals, file = text.partition("=")
        path = Path(file if equals else text)
        name = name if equals else path.name.split(".")[0]
        if not name or any(mark in name for mark in "/:?#%"):
            raise InputError(f"{name!r} cannot be in a URL: give the model another, NAME={path}")
        if name in named:
            raise InputError(
                f"two models are called {name!r}: give one of them another, NAME={path}"
            )
        named[name] = path
    return named
