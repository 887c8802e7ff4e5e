"""The forward pass alone, cut out of an explain graph, to measure an explanation's cost against."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes import common

from onnxplain.contract.explain import IMAGE, LOGITS
from onnxplain.runtime.conversion import converted
from onnxplain.runtime.sessions.onnx_runtime.options import cuda_options, session_options
from onnxplain.runtime.sessions.openvino.compile import prepared
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.options import configuration


def forward_proto(path: str | os.PathLike[str], precision: str = "float32") -> onnx.ModelProto:
    """The part of an explain graph that computes `logits` from `image`, in that precision."""
    if precision in ("float16", "bfloat16"):
        model = ir.from_proto(onnx.load_from_string(converted(Path(path), precision)))
    else:
        model = ir.load(path)
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name == LOGITS]
    common.RemoveUnusedNodesPass()(model)
    graph.inputs[:] = [value for value in graph.inputs if value.name == IMAGE]
    return ir.to_proto(model)


def forward_run(
    path: str | os.PathLike[str], provider: str, precision: str, threads: int | None, images: Any
) -> Callable[[], Any]:
    """The forward pass on the engine, and with the settings, that run the explanation.

    Args:
        provider: "cpu", "openvino" or "cuda".
        images: float32 [N, C, H, W], an array, or a torch tensor on the GPU.

    Returns:
        What computes the logits of the images, and waits for them.
    """
    if provider == "openvino":
        return _openvino(forward_proto(path), precision, threads, images)
    if provider == "cpu":
        session = _session(forward_proto(path, precision), threads, ["CPUExecutionProvider"])
        return lambda: session.run([LOGITS], {IMAGE: images})[0]
    options = ("CUDAExecutionProvider", cuda_options(precision, 0, False, None))
    session = _session(forward_proto(path, precision), None, [options])
    binding = session.io_binding()
    binding.bind_ortvalue_input(IMAGE, onnxruntime.OrtValue.from_dlpack(images))
    binding.bind_output(LOGITS, "cuda")
    return lambda: session.run_with_iobinding(binding)


def _session(
    model: onnx.ModelProto, threads: int | None, providers: list[Any]
) -> onnxruntime.InferenceSession:
    options = session_options(threads)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def _openvino(model: onnx.ModelProto, precision: str, threads: int | None, images: Any) -> Any:
    shapes = ((IMAGE, images.shape),) if len(images) == 1 else None
    read = prepared(core().read_model(model.SerializeToString()), precision, shapes)
    config = configuration(precision, "latency", threads)
    request = core().compile_model(read, "CPU", config).create_infer_request()
    return lambda: request.infer({IMAGE: images}, share_inputs=True)[0]
