"""The command `onnxplain serve`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli.app import command
from onnxplain.cli.options import Precision, Provider, count
from onnxplain.errors import InputError

Models = Annotated[
    list[str],
    typer.Argument(
        help="Explain graphs or engines: MODEL.explain.onnx, or NAME=MODEL.explain.onnx."
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to listen on; 0.0.0.0 for all of the machine's.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")]
Batch = Annotated[
    int | None,
    count("Most images in one backend call.", show_default="2 on a processor, else 8"),
]
Wait = Annotated[
    float,
    typer.Option(min=0, help="Milliseconds that a call waits for more images, if a backend idles."),
]
Threads = Annotated[int | None, count("Threads of one call.", show_default="1 on a processor")]
Instances = Annotated[
    int | None,
    count("Calls of a model at a time.", show_default="one for each core; 2 on a GPU"),
]
Decoders = Annotated[
    int | None,
    count("Threads that decode and draw.", show_default="half the cores, at least 2"),
]
Loaded = Annotated[
    int,
    count("Models kept in memory; for one more, the longest unused goes."),
]
Preload = Annotated[
    bool,
    typer.Option("--preload", help="Load all models before answering, not each when first asked."),
]
MaxRequests = Annotated[int, count("Requests in hand; any more get 503 with Retry-After.")]
MaxMib = Annotated[float, typer.Option(min=0.001, help="Largest body of a request, in MiB.")]
MaxMegapixels = Annotated[float, typer.Option(min=0.001, help="Largest image, in megapixels.")]
MaxCallMegapixels = Annotated[
    float,
    typer.Option(
        min=0.001,
        help="Most megapixels of all images in a call together, each for each of its targets, for "
        "a network that takes any size. Time and memory grow with them.",
    ),
]
MaxImages = Annotated[int, count("Most images × targets in a request.")]
MaxConnections = Annotated[
    int, count("Most connections open at a time; for one more, the longest idle goes.")
]
MaxSeconds = Annotated[
    float, typer.Option(min=0.1, help="From a request's arrival to its answer; after that, 503.")
]
ReadSeconds = Annotated[
    float,
    typer.Option(min=0.1, help="For a client to send the head of a request, and again its body."),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="ONNXPLAIN_TOKEN",
        show_envvar=True,
        help="Clients must send it: Authorization: Bearer TOKEN. Other users of the machine can "
        "see an option; better set it in the environment.",
    ),
]
Certificate = Annotated[
    Path | None, typer.Option(help="The TLS certificate with its chain, a PEM file.")
]
Key = Annotated[Path | None, typer.Option(help="The certificate's private key, a PEM file.")]
Site = Annotated[
    Path | None,
    typer.Option(help="A folder made by `onnxplain web`, to show at /; not with --token."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        help="A name by which clients may call the service; once for each. By default any, but "
        "localhost alone where --host is the loopback address and there is no token: a stranger's "
        "page could otherwise ask it through a browser."
    ),
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


@command
def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    provider: Provider = "auto",
    precision: Precision = "float32",
    batch: Batch = None,
    wait: Wait = 2.0,
    threads: Threads = None,
    instances: Instances = None,
    decoders: Decoders = None,
    loaded: Loaded = 4,
    preload: Preload = False,
    max_requests: MaxRequests = 256,
    max_mib: MaxMib = 16,
    max_megapixels: MaxMegapixels = 25,
    max_call_megapixels: MaxCallMegapixels = 2.1,
    max_images: MaxImages = 16,
    max_connections: MaxConnections = 1024,
    max_seconds: MaxSeconds = 30,
    read_seconds: ReadSeconds = 10,
    token: Token = None,
    certificate: Certificate = None,
    key: Key = None,
    site: Site = None,
    allow_host: AllowHost = None,
    log_level: LogLevel = "info",
) -> None:
    """Answer requests for explanations over HTTP: its own API, and the KServe v2 protocol.

    Requests that arrive together are explained in one call of the backend. A request too many is
    refused at once (503, Retry-After), and so is one that is too large or too slow. On SIGTERM it
    answers all that it has accepted, and ends. The API is described at /docs, metrics are at
    /metrics, and tritonclient.http finds what it knows under /v2.

    \b
        onnxplain serve resnet50.explain.onnx
        curl -F image=@cat.jpg localhost:8000/v1/models/resnet50:explain
        curl -F image=@cat.jpg -F targets=-1 -F targets="tiger cat" -F output=png -o why.png \\
            localhost:8000/v1/models/resnet50:explain
        curl -F image=@street.jpg -F box=40,10,90,60 localhost:8000/v1/models/yolo:explain
        curl -F image=@street.jpg -F region=@mask.png localhost:8000/v1/models/fcn:explain
        ONNXPLAIN_TOKEN=… onnxplain serve cnn=resnet50.explain.onnx vit.explain.onnx \\
            --host 0.0.0.0 --certificate cert.pem --key key.pem
    """
    from onnxplain.serve import names, server, settings

    _check(precision, log_level, certificate, key)
    threads, calls, images = settings.spread(provider, precision, threads, instances, batch)
    decoders = decoders or max(2, settings.cores() // 2)
    limits = settings.Limits(
        body_bytes=round(max_mib * settings.MEBIBYTE),
        pixels=round(max_megapixels * 1e6),
        call_pixels=round(max_call_megapixels * 1e6),
        images=max_images,
        requests=max_requests,
        connections=max_connections,
        seconds=max_seconds,
        read_seconds=read_seconds,
    )
    batching = settings.Batching(images, wait / 1000, calls)
    running = settings.Running(provider, precision, threads, loaded, preload, decoders)
    hosts = names.hosts_of(host, token, allow_host or ())
    wanted = settings.Settings(_named(models), limits, batching, running, token, site, hosts)
    server.serve(wanted, host, port, certificate, key, log_level)


def _check(precision: str, log_level: str, certificate: Path | None, key: Path | None) -> None:
    if log_level not in ("debug", "info", "warning", "error"):
        raise InputError(f"--log-level is debug, info, warning or error, not {log_level!r}")
    if precision == "auto":
        raise InputError("name a precision: `onnxplain explain --precision auto` finds the fastest")
    if key is not None and certificate is None:
        raise InputError("--key goes with --certificate")


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
