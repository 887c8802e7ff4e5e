"""The forward pass alone, cut out of an explain graph: its cost, and what it puts out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from onnxplain.contract.explain import IMAGE, LOGITS, Metadata
from onnxplain.contract.request import BGR, CHANNELS
from onnxplain.reference.running import run, session_options
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions.onnx_runtime.options import failures, inference_session

Array = npt.NDArray[Any]


def forward_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The part of an explain graph that computes `logits` from `image`."""
    model = onnx.load(path, load_external_data=False)
    cut(model.graph, [LOGITS])
    kept = [value for value in model.graph.input if value.name == IMAGE]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def cut(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Leave a graph what computes some of its outputs. Its inputs stay."""
    needed, nodes = set(names), []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(read_by(node))
    kept: dict[str, list[Any]] = {
        "node": nodes[::-1],
        "output": [value for value in graph.output if value.name in names],
        "initializer": [tensor for tensor in graph.initializer if tensor.name in needed],
        "value_info": [value for value in graph.value_info if value.name in needed],
    }
    for field, entries in kept.items():
        graph.ClearField(field)  # type: ignore[arg-type]
        getattr(graph, field).extend(entries)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of a graph, and of the subgraphs in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The names of what a node reads, in its subgraphs too, and of what these make."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from read_by(inner)


def write_forward(graph: str | os.PathLike[str], path: Path) -> Path:
    """Write that part of an explain graph to a file, which `open_session` runs with the settings
    that run the explanation."""
    onnx.save(forward_proto(graph), path)
    return path


def turned_for(file: Path, given: Mapping[str, Array]) -> Mapping[str, Array]:
    """The inputs of a graph for which its network sees the image that is given: with the channels
    turned round where the graph turns them round."""
    metadata = Metadata.from_props(read_metadata(file))
    return {**given, IMAGE: turned(metadata, given[IMAGE])}


def turned(metadata: Metadata, images: Array) -> Array:
    """Images, in the graph's layout, as its network has their channels; or the other way round."""
    if metadata.parameters.get(CHANNELS) != BGR:
        return images
    return np.ascontiguousarray(
        np.flip(images, -1 if metadata.preprocessing.layout == "NHWC" else 1)
    )


def run_forward(file: Path, given: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Some outputs of the graph, which is loaded as a whole; what runs is its forward pass.

    Raises:
        BackendError: ONNX Runtime does not take it, or fails.
        UnfinishedError: it does not end.
    """
    as_it_is = session_options()
    as_it_is.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    inference_session(file, "float32", as_it_is, ["CPUExecutionProvider"])
    model = onnx.load(file, load_external_data=False)
    cut(model.graph, names)
    options = session_options()
    options.add_session_config_entry(_DATA_FOLDER, str(file.parent))
    with failures():
        forward = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return dict(zip(names, run(forward, names, given), strict=True))


_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
