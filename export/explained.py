"""By what a network is explained: its image, or other values, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.contract.explain import PULLBACK
from onnxplain.contract.request import BGR, ExportOptions
from onnxplain.contract.values import (
    NUMBERS,
    PICTURE,
    SERIES,
    TABLE,
    TOKENS,
    VOLUME,
    ExplainedValue,
    Taken,
    Values,
)
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.canonical.ends import like_an_image, own_inputs
from onnxplain.export.layers import value_named
from onnxplain.export.tensors import dims, rank

_COLUMNS = 256
"""A vector of more numbers, or of an open number, is a series, and no table's row."""


@dataclass(frozen=True)
class ByValues:
    """The values that a network is explained by.

    Attributes:
        names: as they are called → in the graph of the source.
        embedded: values that are embeddings → the input of their tokens.
        note: what was chosen without being asked for, in words.
    """

    names: Mapping[str, str]
    embedded: Mapping[str, str]
    note: str = ""


def explained_by(graph: ir.Graph, options: ExportOptions) -> ByValues | None:
    """What the options ask for, or the inputs show; None for the image.

    Raises:
        SourceError: nothing shows it: the message lists the inputs, and what could be asked for.
    """
    embedded = _embeddings(graph)
    if options.wrt:
        names = [options.wrt] if isinstance(options.wrt, str) else list(options.wrt)
        if len(set(names)) < len(names):
            raise SourceError(f"wrt=: {', '.join(names)}: one is named twice")
        return ByValues({name: _in_source(graph, name) for name in names}, embedded)
    inputs = own_inputs(graph)
    if options.input is not None or any(map(like_an_image, inputs)):
        return None
    floats = [x for x in inputs if x.dtype is not None and x.dtype.is_floating_point()]
    found = [*(str(x.name) for x in floats if x.shape is not None and len(x.shape)), *embedded]
    if len(found) != 1:
        listing = ", ".join(f"{x.name} {x.dtype}{x.shape}" for x in inputs) or "none"
        choice = ", ".join(
            f"{name} (the embedding of {embedded[name]})" if name in embedded else name
            for name in found
        )
        raise SourceError(
            "no image-like input (float, [N, C, H, W] or [N, H, W, C]); choose what to explain by "
            f"with wrt={f', as {choice}' if choice else ', any value of floats'}; inputs: "
            f"{listing}"
        )
    (name,) = found
    what = f"the embedding of {embedded[name]}" if name in embedded else "the input of floats"
    note = f"explained by {name}, {what}; others may be chosen with wrt="
    return ByValues({name: name}, embedded, note)


def _in_source(graph: ir.Graph, name: str) -> str:
    """The name of a value, also by that of its node or PyTorch module."""
    values = {str(y.name) for node in graph for y in node.outputs} | {
        str(x.name) for x in [*graph.inputs, *graph.initializers.values()]
    }
    if name in values:
        return name
    try:
        return str(value_named(graph, name).name)
    except SourceError:
        return name  # which the preparation of the graph refuses, and suggests another


def _embeddings(graph: ir.Graph) -> dict[str, str]:
    """The results of looking whole numbers up in a table of floats → the input that holds them.

    Of several tables for one input, or for several of one shape as BERT's, the longest counts.
    """
    found: dict[str, tuple[int, str, list[int | ir.SymbolicDim]]] = {}
    for x in own_inputs(graph):
        if x.dtype is None or not x.dtype.is_integer():
            continue
        active = dependents(graph, [x])
        for node in graph:
            if node.op_type != "Gather" or node.inputs[1] not in active:
                continue
            rows = _rows(node.inputs[0])
            if rows and rows > found.get(str(x.name), (0, "", []))[0]:
                shape = [] if x.shape is None else list(x.shape)
                found[str(x.name)] = rows, str(node.outputs[0].name), shape
    longest = [
        (name, y)
        for name, (rows, y, shape) in found.items()
        if not any(
            other != name and shape == beside and rows < more
            for other, (more, _, beside) in found.items()
        )
    ]
    return {y: name for name, y in longest}


def _rows(table: ir.Value | None) -> int:
    """Of a table [rows, D] of floats; 0 of what is none."""
    while table is not None and (node := table.producer()) is not None:
        if node.op_type not in ("Identity", "Cast", "DequantizeLinear"):
            return 0
        table = node.inputs[0]
    tensor = None if table is None else table.const_value
    if tensor is None or len(tensor.shape) != 2:
        return 0
    floats = tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8
    return int(tensor.numpy().shape[0]) if floats else 0


def described(
    graph: ir.Graph,
    by: ByValues,
    roots: Mapping[str, ir.Value],
    sources: Mapping[str, ir.Value],
) -> Values:
    """What the file says of the inputs and the values.

    Args:
        graph: with the network's inputs alone, that of the batch first.
        roots: the values by the names that `by` calls them.
        sources: the inputs by their names in the source.
    """
    embedded = {y: sources[x] for y, x in by.embedded.items()}
    batch = dims(graph.inputs[0])[0]
    inputs = {
        str(x.name): Taken(
            TOKENS if x in embedded.values() else _kind(x, True),
            tuple(n if isinstance(n, int) else str(n.value) for n in dims(x)),
            bool(dims(x)) and dims(x)[0] == batch,
        )
        for x in graph.inputs
    }
    explained = {}
    for name, x in roots.items():
        tokens = embedded.get(by.names[name])
        own = x if x in graph.inputs else tokens
        kind = TOKENS if tokens is not None else _kind(x, x in graph.inputs)
        pullback = PULLBACK if len(roots) == 1 else f"{PULLBACK}.{name}"
        explained[name] = ExplainedValue(kind, pullback, "" if own is None else str(own.name))
    return Values(inputs, explained)


def _kind(x: ir.Value, is_input: bool) -> str:
    """What a value is drawn as: by its rank, and whether it is an input."""
    width = rank(x)
    if x.dtype is not None and not x.dtype.is_floating_point():
        return NUMBERS
    if width == 2:
        size = dims(x)[1]
        return TABLE if isinstance(size, int) and size <= _COLUMNS else SERIES
    if width == 4:
        return PICTURE
    if width == 3 and is_input:
        return SERIES
    return VOLUME if width == 5 else NUMBERS


def check_options(options: ExportOptions, method_has_map: bool, is_traced: bool) -> None:
    """Hold an export that is not by the image to what it allows.

    Args:
        is_traced: whether the network was traced, at an image's size where one is given.

    Raises:
        SourceError: an option that is an image's.
    """
    of_image: Sequence[tuple[str, bool]] = (
        ("input", options.input is not None),
        ("size", options.size is not None and not is_traced),
        ("mean", options.mean is not None),
        ("std", options.std is not None),
        ("scale", options.scale != 1),
        ("channels", options.channels == BGR),
        ("fit", options.fit is not None),
        ("fill", options.fill is not None),
        ("resize", options.resize is not None),
        ("interpolation", options.interpolation is not None),
        ("preprocess", options.preprocess),
        ("quantise_output", options.quantise_output is not None),
        ("estimator", options.estimator is not None),
        ("picture", options.picture is not None),
        ("step", options.step),
        ("unroll", options.unroll is not None),
    )
    for name, given in of_image:
        if given:
            raise SourceError(
                f"{name}= is of an image, and this export explains by other values: leave it out"
            )
    if method_has_map:
        raise SourceError(
            f"{options.method!r} makes a map of an image; choose another method, or for another "
            "value gradient with times_image"
        )
