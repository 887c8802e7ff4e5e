"""The forward pass alone, cut out of an explain graph, to measure an explanation's cost against."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import IMAGE, LOGITS


def forward_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The part of an explain graph that computes `logits` from `image`."""
    model = ir.load(path)
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name == LOGITS]
    common.RemoveUnusedNodesPass()(model)
    graph.inputs[:] = [value for value in graph.inputs if value.name == IMAGE]
    return ir.to_proto(model)


def write_forward(graph: str | os.PathLike[str], path: Path) -> Path:
    """Write that part of an explain graph to a file, which `open_session` runs with the settings
    that run the explanation."""
    onnx.save(forward_proto(graph), path)
    return path
