"""The command `onnxplain package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import say
from onnxplain.cli.options import count
from onnxplain.errors import InputError

Model = Annotated[
    Path,
    typer.Argument(
        help="An explain graph, or for Triton an engine of `onnxplain build --provider tensorrt`."
    ),
]
Triton = Annotated[Path | None, typer.Option(help="Add it to this model repository of Triton's.")]
KServe = Annotated[
    Path | None, typer.Option(help="Write a KServe InferenceService to this YAML file.")
]
Oci = Annotated[
    Path | None, typer.Option(help="Write a Dockerfile with all it needs to this folder.")
]
HuggingFace = Annotated[
    Path | None,
    typer.Option(
        "--huggingface", help="Write a repository for the Hugging Face hub to this folder."
    ),
]
Sample = Annotated[
    Path | None, typer.Option(help="For --huggingface: the image that its card shows, explained.")
]
Original = Annotated[
    str | None,
    typer.Option(
        help="For --huggingface: the network, as for `onnxplain export`; the card says how exactly "
        "the file agrees with it."
    ),
]
License = Annotated[
    str | None, typer.Option(help="For --huggingface: the network's, as the hub names licenses.")
]
BaseModel = Annotated[
    str | None, typer.Option(help="For --huggingface: the network's own repository, OWNER/NAME.")
]
Name = Annotated[
    str | None, typer.Option(help="What clients call the model.", show_default="the file's name")
]
ContainerImage = Annotated[
    str | None, typer.Option(help="For --kserve: the image built from --oci's folder.")
]
StorageUri = Annotated[
    str | None,
    typer.Option(help="For --kserve instead of --image: where Triton's repository was put."),
]
Batch = Annotated[int, count("Triton: most images in one call.")]
Wait = Annotated[
    float, typer.Option(min=0, help="Triton: milliseconds that a call waits for more images.")
]
MaxRequests = Annotated[int, count("Triton: requests that may wait; any more are refused.")]
MaxSeconds = Annotated[
    float, typer.Option(min=0.001, help="Triton: how long one may wait before it is refused.")
]
Instances = Annotated[int, count("Triton: calls at a time, on each device.")]
Kind = Annotated[str, typer.Option(help="Triton: run on gpu, cpu, or auto.")]
Accelerator = Annotated[
    str,
    typer.Option(help="Triton: none; tensorrt on a GPU or openvino on a CPU, in ONNX Runtime."),
]
Precision = Annotated[str, typer.Option(help="With --accelerator tensorrt: float32 or float16.")]
Threads = Annotated[int | None, count("Triton: threads of one call on a processor.")]
CudaGraphs = Annotated[
    bool, typer.Option("--cuda-graphs", help="Triton: record a GPU's work once, and replay it.")
]


@command
def package(
    model: Model,
    triton: Triton = None,
    kserve: KServe = None,
    oci: Oci = None,
    huggingface: HuggingFace = None,
    name: Name = None,
    image: ContainerImage = None,
    storage_uri: StorageUri = None,
    batch: Batch = 8,
    wait: Wait = 2.0,
    max_requests: MaxRequests = 256,
    max_seconds: MaxSeconds = 30.0,
    instances: Instances = 1,
    kind: Kind = "auto",
    accelerator: Accelerator = "none",
    precision: Precision = "float32",
    threads: Threads = None,
    cuda_graphs: CudaGraphs = False,
    sample: Sample = None,
    source: Original = None,
    license: License = None,
    base_model: BaseModel = None,
) -> None:
    """Package a model for the servers that operators run (Triton, KServe, any container), or for
    the Hugging Face hub.

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
    \b
        onnxplain package resnet50.explain.onnx --huggingface resnet50-explain \\
            --sample cat.jpg --source resnet50 --license bsd-3-clause
    """
    from onnxplain.serve import packages
    from onnxplain.serve.packages import oci as container
    from onnxplain.serve.packages import triton as repository

    if huggingface:
        _write_repository(model, huggingface, sample, source, license, base_model)
    if not (triton or kserve or oci):
        if huggingface:
            return
        raise InputError(
            "say what to write: --triton DIR, --oci DIR, --kserve FILE or --huggingface DIR"
        )
    if kserve and (image is None) == (storage_uri is None):
        raise InputError("--kserve runs an --image, or Triton with a --storage-uri: give one")
    if kind not in ("auto", "gpu", "cpu") or accelerator not in ("none", "tensorrt", "openvino"):
        raise InputError(
            "--kind is auto, gpu or cpu, and --accelerator none, tensorrt or openvino, not "
            f"{kind!r} and {accelerator!r}"
        )
    called = packages.model_name(model, name)
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
        say(f"{folder}  serve it: tritonserver --model-repository {triton}")
    if oci:
        container.write_context(model, oci, called)
        say(f"{oci}  build it: docker build -t {called} {oci}")
    if kserve:
        _write_service(kserve, called, image, storage_uri, gpus=0 if kind == "cpu" else 1)
        say(f"{kserve}  deploy it: kubectl apply -f {kserve}")


def _write_repository(
    model: Path,
    folder: Path,
    sample: Path | None,
    source: str | None,
    license: str | None,
    base_model: str | None,
) -> None:
    from onnxplain.serve.packages import huggingface

    if sample is None:
        raise InputError("--huggingface shows an explained image: give one with --sample")
    about = huggingface.About(source=source, license=license, base_model=base_model)
    huggingface.write_repository(model, folder, sample, about)
    say(f"{folder}  send it: hf upload {folder.name} {folder}")


def _write_service(
    path: Path, called: str, image: str | None, storage_uri: str | None, gpus: int
) -> None:
    from onnxplain.serve.packages import kserve

    if image is not None:
        kserve.with_image(called, image, path)
    elif storage_uri is not None:
        kserve.with_triton(called, storage_uri, path, gpus)
