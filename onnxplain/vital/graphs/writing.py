"""What the graphs of a feature visualisation share: how they begin, and what their files carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder
from onnxplain.contract.steps import MatchedLayer, StepMetadata
from onnxplain.errors import SourceError
from onnxplain.export.finish import clean, write
from onnxplain.export.lower import stay_on_gpu
from onnxplain.export.tensors import dims, rank
from onnxplain.version import __version__
from onnxplain.vital.graphs.matching import extent
from onnxplain.vital.graphs.subject import Subject, value_of
from onnxplain.vital.settings import Flow


def begin(subject: Subject) -> tuple[ir.Graph, OpBuilder, dict[str, ir.Value]]:
    """The graph to build on, its op builder, and the matched layers by their names for people.

    Raises:
        SourceError: a matched layer without positions.
    """
    model = subject.model.clone()
    graph = model.graph
    builder = Builder(graph)
    builder.push_module("step")
    layers = {name: value_of(graph, value) for value, name in subject.layers.items()}
    for name, layer in layers.items():
        if rank(layer) == 2:
            raise SourceError(
                f"the layer {name!r} is {layer.shape}: without positions there is no distribution "
                "to match; leave it out of the matched layers, or visualise its channels as neurons"
            )
    return graph, builder.op, layers


def finish(
    subject: Subject,
    op: OpBuilder,
    layers: Mapping[str, ir.Value],
    path: Path,
    carried: dict[str, str],
    flow: Flow,
) -> None:
    """Write the graph, with its metadata.

    Args:
        layers: the matched ones, by their names for people.
        carried: output → the input that it becomes in the next step.

    Raises:
        InputError: the path cannot be written.
    """
    graph = op.builder.graph
    graph.sort()
    image = subject.model.graph.inputs[0]
    matched = tuple(MatchedLayer(name, *extent(layer, image)) for name, layer in layers.items())
    model = ir.Model(
        graph, ir_version=subject.model.ir_version, functions=[], producer_name="onnxplain",
        producer_version=__version__,
    )  # fmt: skip
    stay_on_gpu(op)
    clean(model)
    neuron = None if subject.neuron is None else subject.neuron[1]
    batch = dims(image)[0]
    step = StepMetadata(
        matched,
        neuron,
        carried,
        flow.kind if neuron is not None and layers else None,
        batch if isinstance(batch, int) else str(batch.value),
    )
    model.metadata_props.update(subject.metadata("vital").to_props() | step.to_props())
    write(model, path)


def add_input(
    op: OpBuilder, name: str, dtype: ir.DataType | None, shape: Sequence[Any]
) -> ir.Value:
    """Add an input to the graph."""
    return op.builder.input(name, dtype, list(shape))


def add_output(op: OpBuilder, value: ir.Value, name: str) -> None:
    """Make a value an output of the graph, under that name."""
    value.name = name
    op.builder.graph.outputs.append(value)
