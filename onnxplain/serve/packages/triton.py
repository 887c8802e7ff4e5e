"""A model repository of NVIDIA's Triton Inference Server.

REPOSITORY/NAME/config.pbtxt   as `model_config.proto` has it
REPOSITORY/NAME/labels.txt     the class names
REPOSITORY/NAME/1/model.onnx   the explain graph; or model.plan, a TensorRT engine
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from onnxplain.contract.explain import IMAGE
from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.inputs.frames import frame_shape
from onnxplain.runtime.sessions import open_backend
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX, Engine, read_engine
from onnxplain.runtime.signature import Signature
from onnxplain.serve.packages import new_folder
from onnxplain.serve.packages.prototext import Enum, entries, prototext
from onnxplain.serve.ports import Port, input_ports, output_ports

Kind: TypeAlias = Literal["auto", "gpu", "cpu"]
Accelerator: TypeAlias = Literal["none", "tensorrt", "openvino"]

_BITS = (8, 16, 32, 64)
_TYPES = {
    **{"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64"},
    **{f"{sign}int{bits}": f"TYPE_{sign}INT{bits}".upper() for sign in ("", "u") for bits in _BITS},
    "bool": "TYPE_BOOL",
}
_PRECISIONS = {"float32": "FP32", "float16": "FP16"}
_LABELS = "labels.txt"
_WORKSPACE_BYTES = 1 << 30


@dataclass(frozen=True)
class Options:
    """What an operator decides.

    Attributes:
        batch: the most images in a call.
        delay: for how many seconds a call waits for more images.
        queue: how many requests may wait; Triton refuses any more.
        timeout: after how many seconds a waiting request is refused.
        instances: calls at a time, on each device.
        kind: where to run; "auto" leaves it to Triton.
        accelerator: for ONNX Runtime: TensorRT on GPUs, OpenVINO on CPUs.
        precision: TensorRT's, "float32" or "float16".
        threads: CPU threads per call; None leaves the number to ONNX Runtime.
        cuda_graphs: whether to record a call on a GPU once and replay it.
    """

    batch: int = 8
    delay: float = 0.002
    queue: int = 256
    timeout: float = 30.0
    instances: int = 1
    kind: Kind = "auto"
    accelerator: Accelerator = "none"
    precision: str = "float32"
    threads: int | None = None
    cuda_graphs: bool = False


def write_repository(model: Path, repository: Path, name: str, options: Options) -> Path:
    """Add a model to a repository, which may hold others, and return the model's folder.

    Args:
        model: an explain graph, or an engine made by `onnxplain build --provider tensorrt`.
        repository: Triton's --model-repository; created if missing.
        name: what clients call the model.
        options: what goes into its config.pbtxt.

    Raises:
        BackendError: not an explain graph, or one that Triton cannot run.
        InputError: options that do not suit it; a model that is in the repository already.
    """
    engine = read_engine(model) if model.suffix == SUFFIX else None
    signature = _signature(model, engine)
    signature.metadata.require_image("the package for Triton")
    folder = repository / name
    config = prototext(model_config(signature, name, options, engine))
    with new_folder(folder) as new:
        version = new / "1"
        version.mkdir()
        (new / "config.pbtxt").write_text(config, encoding="utf-8")
        if signature.metadata.labels:
            labels = "".join(f"{label}\n" for label in signature.metadata.labels)
            (new / _LABELS).write_text(labels, encoding="utf-8")
        if engine is not None:
            (version / "model.plan").write_bytes(engine.payload)
        else:
            shutil.copyfile(model, version / "model.onnx")
            weights = model.with_name(f"{model.name}.data")
            if weights.is_file():  # the graph refers to it by this very name
                shutil.copyfile(weights, version / weights.name)
    return folder


def model_config(
    signature: Signature, name: str, options: Options, engine: Engine | None = None
) -> dict[str, Any]:
    """Triton's ModelConfig, as `prototext` takes it.

    Args:
        signature: the graph's.
        name: the model's.
        options: what an operator decides.
        engine: TensorRT's, if that is what runs.

    Raises:
        BackendError: Triton cannot run such a graph.
        InputError: options that do not suit it.
    """
    _check(signature, options, engine)
    most = _most(signature, options, engine)
    batched = signature.batch is None
    inputs, outputs = _ports(signature)
    kind = Enum(f"KIND_{options.kind}".upper())
    config: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime" if engine is None else "tensorrt",
        "max_batch_size": most if batched else 0,
        "input": inputs,
        "output": outputs,
        "instance_group": [{"count": options.instances, "kind": kind}],
        "optimization": _optimization(options),
        "model_warmup": _warmups(signature, inputs, most),
    }
    if batched:
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": round(1e6 * options.delay),
            "default_queue_policy": {
                "timeout_action": Enum("REJECT"),
                "default_timeout_microseconds": round(1e6 * options.timeout),
                "max_queue_size": options.queue,
            },
        }
        if engine is not None:  # what its profile was tuned for
            usual = engine.profile[IMAGE][1][0]
            config["dynamic_batching"]["preferred_batch_size"] = sorted({min(usual, most), most})
    if options.threads is not None:
        threads = {"string_value": str(options.threads)}
        config["parameters"] = entries({"intra_op_thread_count": threads})
    return config


def _signature(model: Path, engine: Engine | None) -> Signature:
    if engine is None:
        return open_backend(model, "cpu").signature
    return Signature.of(engine.metadata, engine.inputs, engine.outputs)


def _check(signature: Signature, options: Options, engine: Engine | None) -> None:
    if signature.live or signature.step:
        raise BackendError(
            "Triton has no scalar inputs: export the graph without live_temperature=True, live "
            "parameters and step=True"
        )
    if own := ", ".join(map(repr, signature.metadata.estimator.inputs)):
        raise BackendError(f"the package for Triton has one image alone, not the estimator's {own}")
    if engine is not None and engine.provider != "tensorrt":
        raise BackendError(
            f"Triton runs engines of TensorRT, not of {engine.provider}: build one with "
            "provider='tensorrt', or package the explain graph with accelerator='tensorrt'"
        )
    if engine is not None and (options.accelerator != "none" or options.kind == "cpu"):
        raise InputError("an engine runs on a GPU, and needs no accelerator")
    if options.accelerator == "tensorrt" and options.kind == "cpu":
        raise InputError("TensorRT accelerates on GPUs, not with kind='cpu'")
    if options.accelerator == "openvino" and options.kind != "cpu":
        raise InputError("OpenVINO accelerates on processors: add kind='cpu'")
    precision = precision_named(options.precision)
    if precision not in _PRECISIONS:
        known = ", ".join(_PRECISIONS)
        raise InputError(f"an accelerator's precision is one of {known}, not {precision!r}")
    if precision != "float32" and options.accelerator != "tensorrt":
        raise InputError("a precision goes with accelerator='tensorrt'")


def _most(signature: Signature, options: Options, engine: Engine | None) -> int:
    """The most images in a call.

    Raises:
        BackendError: an engine that cannot take a single image, which a client may well send.
    """
    if signature.batch is not None:
        return signature.batch
    if engine is None:
        return options.batch
    least, _, largest = (shape[0] for shape in engine.profile[IMAGE])
    if least > 1:
        raise BackendError(
            f"the engine takes {least} images at least, and Triton may give it one: build it with "
            "onnxplain build --batch 1,…"
        )
    return min(options.batch, largest)


def _ports(signature: Signature) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs, without the batch if Triton batches, and with it if it is fixed."""

    def described(port: Port) -> dict[str, Any]:
        fixed = signature.batch is not None
        found: dict[str, Any] = {
            "name": port.name,
            "data_type": Enum(_TYPES[port.dtype]),
            "dims": port.shape(signature.batch or 0) if fixed else [*port.sizes],
        }
        if not found["dims"]:  # a vector over the batch, which Triton cannot name: [N,1] for it
            found |= {"dims": [1], "reshape": {"shape": []}}
        return found

    batches = signature.batch is None  # and then the batch must come first
    outputs = [
        described(p) for p in output_ports(signature, quantised=True) if p.axis == 0 or not batches
    ]
    if signature.metadata.objective.is_class and signature.metadata.labels:
        outputs[0]["label_filename"] = _LABELS
    return [described(port) for port in input_ports(signature)], outputs


def _optimization(options: Options) -> dict[str, Any]:
    optimization: dict[str, Any] = {
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
    }
    if options.cuda_graphs:
        optimization["cuda"] = {"graphs": True}
    if options.accelerator == "tensorrt":
        parameters = {
            "precision_mode": _PRECISIONS[precision_named(options.precision)],
            "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
            "trt_engine_cache_enable": "true",
            "trt_engine_cache_path": "/tmp/onnxplain-engines",  # noqa: S108  (in its container)
        }
        accelerator = {"name": "tensorrt", "parameters": entries(parameters)}
        optimization["execution_accelerators"] = {"gpu_execution_accelerator": [accelerator]}
    elif options.accelerator == "openvino":
        optimization["execution_accelerators"] = {
            "cpu_execution_accelerator": [{"name": "openvino"}]
        }
    return optimization


def _warmups(signature: Signature, inputs: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Warm up with one image and with the most, before the first client asks for either."""
    given = {
        port["name"]: {
            "data_type": port["data_type"],
            "dims": _warm_dims(port, signature),
            "zero_data": True,
        }
        for port in inputs
    }
    sizes = {1: 1, most: most}
    if signature.batch is not None:  # the dims have it; to Triton such a model does not batch
        sizes = {most: 1}
    return [
        {"name": f"{images} images", "batch_size": size, "inputs": entries(given)}
        for images, size in sizes.items()
    ]


def _warm_dims(port: dict[str, Any], signature: Signature) -> list[int]:
    """With photographs of twice the network's size, or of the usual one where it takes any; and
    one target where their number is open."""
    pre, pixels = signature.metadata.preprocessing, signature.metadata.pixels
    if port["name"] != IMAGE:
        return [abs(dim) for dim in port["dims"]]
    times = 1 if pre.any_size else 2
    photograph = frame_shape(pixels, times * pre.width, times * pre.height) if pixels else None
    shape = photograph or pre.image_shape
    return [*port["dims"][: -len(shape)], *shape]
