"""The command `onnxplain package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from onnxplain.cli.app import command, out
from onnxplain.errors import InputError


@command
def package(
    model: Annotated[
        Path,
        typer.Argument(
            help="An explain graph, or for Triton an engine of `onnxplain build --provider "
            "tensorrt`."
        ),
    ],
    triton: Annotated[
        Path | None, typer.Option(help="Add it to this model repository of Triton's.")
    ] = None,
    kserve: Annotated[
        Path | None, typer.Option(help="Write a KServe InferenceService to this YAML file.")
    ] = None,
    oci: Annotated[
        Path | None, typer.Option(help="Write a Dockerfile with all it needs to this folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="As clients call the model. [default: the file's]")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="For --kserve: the image made from --oci's folder.")
    ] = None,
    storage_uri: Annotated[
        str | None, typer.Option(help="For --kserve instead: where Triton's repository was put.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Triton: images of a call at most.")] = 8,
    wait: Annotated[
        float, typer.Option(min=0, help="Triton: milliseconds that a call waits for more.")
    ] = 2.0,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Triton: requests that may wait; above, it refuses.")
    ] = 256,
    max_seconds: Annotated[
        float, typer.Option(min=0.001, help="Triton: after which one that waits is refused.")
    ] = 30.0,
    instances: Annotated[
        int, typer.Option(min=1, help="Triton: calls at a time, on each device.")
    ] = 1,
    kind: Annotated[str, typer.Option(help="Triton: on gpu, cpu, or auto.")] = "auto",
    accelerator: Annotated[
        str,
        typer.Option(help="Triton: none; tensorrt on a GPU or openvino on a CPU, in ONNX Runtime."),
    ] = "none",
    precision: Annotated[
        str, typer.Option(help="Of --accelerator tensorrt: float32 or float16.")
    ] = "float32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Triton: of one call on a processor.")
    ] = None,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Triton: record a GPU's work once, replay it.")
    ] = False,
) -> None:
    """Package a model for the servers that operators run: Triton, KServe, any container.

    \b
        onnxplain package resnet50.explain.onnx --triton models/
        tritonserver --model-repository models/           # and tritonclient asks it
    \b
        onnxplain package resnet50.explain.onnx --oci image/
        docker build -t registry.example/resnet50 image/
        onnxplain package resnet50.explain.onnx --kserve service.yaml \\
            --image registry.example/resnet50
    \b
        onnxplain build resnet50.explain.onnx --provider tensorrt
        onnxplain package resnet50.explain.engine --triton models/
        onnxplain package resnet50.explain.engine --kserve service.yaml --storage-uri s3://b/models
    """
    from onnxplain.serve.packages import kserve as inference_service
    from onnxplain.serve.packages import model_name
    from onnxplain.serve.packages import oci as container
    from onnxplain.serve.packages import triton as repository

    if not (triton or kserve or oci):
        raise InputError("say what to write: --triton DIR, --oci DIR or --kserve FILE")
    if kserve and (image is None) == (storage_uri is None):
        raise InputError("--kserve runs an --image, or Triton with a --storage-uri: give one")
    if kind not in ("auto", "gpu", "cpu") or accelerator not in ("none", "tensorrt", "openvino"):
        raise InputError(
            "--kind is auto, gpu or cpu, and --accelerator none, tensorrt or openvino, not "
            f"{kind!r} and {accelerator!r}"
        )
    called = model_name(model, name)
    if triton:
        options = repository.Options(
            batch=batch,
            delay=wait / 1000,
            queue=max_requests,
            timeout=max_seconds,
            instances=instances,
            kind=cast(Any, kind),
            accelerator=cast(Any, accelerator),
            precision=precision,
            threads=threads,
            cuda_graphs=cuda_graphs,
        )
        folder = repository.write_repository(model, triton, called, options)
        _say(f"{folder}  serve it: tritonserver --model-repository {triton}")
    if oci:
        container.write_context(model, oci, called)
        _say(f"{oci}  build it: docker build -t {called} {oci}")
    if kserve:
        if image is not None:
            inference_service.with_image(called, image, kserve)
        else:
            gpus = 0 if kind == "cpu" else 1
            inference_service.with_triton(called, cast(str, storage_uri), kserve, gpus)
        _say(f"{kserve}  deploy it: kubectl apply -f {kserve}")


def _say(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True)
