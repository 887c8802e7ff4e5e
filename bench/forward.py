"""The forward pass alone, cut out of an explain graph, to measure an explanation's cost against."""

from __future__ import annotations

import os

import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes import common

from onnxplain.contract import IMAGE, LOGITS
from onnxplain.runtime.backends.onnx_runtime import session_options


def forward_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The part of an explain graph that computes `logits` from `image`."""
    model = ir.load(path)
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name == LOGITS]
    common.RemoveUnusedNodesPass()(model)
    graph.inputs[:] = [value for value in graph.inputs if value.name == IMAGE]
    return ir.to_proto(model)


def forward_session(path: str | os.PathLike[str], threads: int) -> onnxruntime.InferenceSession:
    """A CPU session of it."""
    return onnxruntime.InferenceSession(
        forward_proto(path).SerializeToString(),
        session_options(threads),
        providers=["CPUExecutionProvider"],
    )
