"""An objective that is an ONNX file: a function of the network's outputs, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import TARGET
from onnxplain.contract.objective import INDEX, NUMBERS
from onnxplain.errors import SourceError
from onnxplain.export.canonical.general import opened, spell, standardise
from onnxplain.export.guard import own_errors
from onnxplain.export.objectives.objective import Fit, Input, Network, Objective, Output, Settings
from onnxplain.export.sources.source import from_onnx

SUFFIX = ".onnx"


def of_file(path: Path) -> Objective:
    """The objective that a file computes: its only output, one float per sample, [N].

    Its inputs are outputs of the network, each with its batch axis first, and what else it takes,
    which the explain graph gets as inputs of the same names: of floats or int64, of known sizes
    behind the batch, and with a default where the file has an initializer of one number for it.

    Raises:
        SourceError: it cannot be read, has several outputs, or operators without a standard form.
    """
    found = from_onnx(path)
    defaults = _taken_defaults(found.model.graph)
    with own_errors():
        model, _ = opened(found.model)
        spell(model)
        standardise(model)
    graph = model.graph
    _check(graph, path)

    def inputs(network: Network) -> tuple[Input, ...]:
        outputs = {output.name for output in network.outputs}
        return tuple(
            Input(
                str(x.name),
                f"an input of {path.name}",
                INDEX if x.dtype == ir.DataType.INT64 else NUMBERS,
                defaults.get(str(x.name)),
            )
            for x in graph.inputs
            if x.name not in outputs
        )

    def fits(network: Network, settings: Settings) -> Fit | str:
        outputs = {output.name: output for output in network.outputs}
        read = {str(x.name): outputs[x.name] for x in graph.inputs if x.name in outputs}
        if not read:
            names = ", ".join(str(x.name) for x in graph.inputs)
            return f"no output of the network is called as an input of {path.name}: {names}"
        shapes: dict[str, list[int]] = {}
        for x in graph.inputs:
            name, sizes = str(x.name), list(x.shape or ())
            if name in read:
                if misfit := _misfit(sizes, read[name]):
                    return f"{path.name} takes {name!r} as {sizes}, and the network's is {misfit}"
                continue
            behind = [size for size in sizes[1:] if isinstance(size, int)]
            if not sizes or len(behind) != len(sizes) - 1 or name == TARGET:
                return (
                    f"{name!r} of {path.name} is no output of the network, and no input of its own "
                    "either: such a one is [N, …] of known sizes, and not called 'target'"
                )
            shapes[name] = behind
        return Fit(read, {}, f"{path.name} says so", shapes=shapes)

    def emit(op: OpBuilder, fit: Fit, given: Mapping[str, ir.Value]) -> ir.Value:
        outputs = {name: one.with_batch_first(op) for name, one in fit.outputs.items()}
        return spliced(op, graph, {**given, **outputs})

    return Objective(
        path.name, f"what {path.name} computes", fits, emit, declares=inputs, whole=True
    )


def spliced(op: OpBuilder, graph: ir.Graph, given: Mapping[str, ir.Value]) -> ir.Value:
    """A graph's nodes emitted on other values for its inputs; its first output.

    Args:
        given: by the names of its inputs.
    """
    dtype = next(x.dtype for x in given.values() if x.dtype and x.dtype != ir.DataType.INT64)
    known: dict[ir.Value | None, Any] = {None: None}
    known |= {x: given[str(x.name)] for x in graph.inputs}
    for k, x in enumerate(graph.initializers.values()):
        assert x.const_value is not None
        array = x.const_value.numpy()
        array = array.astype(dtype.numpy()) if array.dtype.kind == "f" else array
        name = f"objective.constant_{k}"
        known[x] = op.builder.initializer(ir.tensor(array, name=name), name, qualify=False)
    for node in graph:
        attributes = {name: each.value for name, each in node.attributes.items()}
        if len(node.outputs) > 1:
            attributes["_outputs"] = len(node.outputs)
        made = getattr(op, node.op_type)(*(known[x] for x in node.inputs), **attributes)
        known |= zip(node.outputs, made if len(node.outputs) > 1 else [made], strict=True)
    end: ir.Value = known[graph.outputs[0]]
    return end


def _check(graph: ir.Graph, path: Path) -> None:
    """
    Raises:
        SourceError: it computes something else than one float per sample in plain nodes.
    """
    if len(graph.outputs) != 1 or not graph.inputs:
        raise SourceError(
            f"{path.name} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs: an "
            "objective takes outputs of the network, and gives one number per sample, [N]"
        )
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    for node in graph:
        if node.domain not in ("", "ai.onnx") or any(
            each.type in bodies for each in node.attributes.values()
        ):
            raise SourceError(
                f"{path.name} has {node.op_type} ({node.name!r}), and an objective has ONNX's own "
                "operators alone, without control flow"
            )


def _taken_defaults(graph: ir.Graph) -> dict[str, float]:
    """The numbers that inputs are full of unless given, taken off the graph: they stay inputs."""
    defaults = {}
    for x in graph.inputs:
        if x.const_value is not None and (numbers := np.unique(x.const_value.numpy())).size == 1:
            defaults[str(x.name)] = float(numbers[0])
            del graph.initializers[str(x.name)]
            x.const_value = None
    return defaults


def _misfit(declared: list[Any], output: Output) -> list[Any] | None:
    """The output's shape, batch first, where it is another than was declared."""
    sizes: list[Any] = ["N", *output.sizes]
    fits = not declared or (
        len(declared) == len(sizes)
        and all(
            not isinstance(n, int) or n == m for n, m in zip(declared[1:], sizes[1:], strict=True)
        )
    )
    return None if fits else sizes
