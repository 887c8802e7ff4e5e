"""What a file says of its network: preprocessing, classes, and what had to be assumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from onnxplain.contract.explain import (
    CROP,
    LETTERBOX,
    NO_IMAGE,
    SQUASH,
    Metadata,
    Preprocessing,
)
from onnxplain.contract.ranges import Range
from onnxplain.contract.request import ExportOptions, as_asked
from onnxplain.contract.values import Values
from onnxplain.errors import SourceError
from onnxplain.export.attended import Attended
from onnxplain.export.autodiff import active_within, dependents, depends, operator_name
from onnxplain.export.canonical.canonicalise import Canonical
from onnxplain.export.canonical.ends import image_size
from onnxplain.export.canonical.patterns import pattern_of
from onnxplain.export.count import multiply_adds
from onnxplain.export.estimators.estimator import Estimator, Sampling
from onnxplain.export.explained import ByValues, described
from onnxplain.export.grids import Layer
from onnxplain.export.layers import home_of
from onnxplain.export.methods import METHODS, Method
from onnxplain.export.methods.clips import is_rectifier
from onnxplain.export.methods.semantic import product
from onnxplain.export.objectives import Fit, Objective
from onnxplain.export.operators import Kind, Linear, by_name, row_of
from onnxplain.export.provenance import modules_of
from onnxplain.export.sources.source import Source
from onnxplain.export.subgraphs import bodies
from onnxplain.export.tensors import dims, size_of
from onnxplain.export.values import is_weight
from onnxplain.version import __version__

_BORDER = 114  # of YOLO's letterboxes


def preprocessing(
    image: ir.Value,
    given: Preprocessing | None,
    options: ExportOptions,
    multiple: int = 0,
    least: int = 1,
) -> Preprocessing:
    """What the source says, or the user, for pixels up to a `scale`; ImageNet's where neither does.

    Raises:
        SourceError: a mean, a deviation or a scale that does not fit the network.
    """
    height, width, channels = image_size(image)
    mean, std, scale = options.mean, options.std, options.scale
    if given is None:
        # Of the longer side, so that a wide crop lies within any photograph.
        given = Preprocessing(height, width, resize=round(max(height, width) * 256 / 224))
        if channels != given.channels:
            given = replace(given, mean=(0.5,) * channels, std=(0.5,) * channels)
    if not (scale > 0 and np.isfinite(scale)):
        raise SourceError(f"scale is the greatest pixel, such as 255, not {scale}")
    if scale != 1:
        mean = (0.0,) * channels if mean is None else mean
        std = (1.0,) * channels if std is None else std
    if mean is not None:
        given = replace(given, mean=tuple(float(value) / scale for value in mean))
    if std is not None:
        given = replace(given, std=tuple(float(value) / scale for value in std))
    if not np.isfinite([*given.mean, *given.std]).all() or min(given.std) <= 0:
        raise SourceError(f"mean and std must be finite, std positive: {given.mean}, {given.std}")
    if not len(given.mean) == len(given.std) == channels:
        raise SourceError(
            f"mean and std have {len(given.mean)} and {len(given.std)} entries; the network's "
            f"input has {channels} channels"
        )
    layout = "NCHW" if dims(image)[1] == channels else "NHWC"
    given = replace(given, height=height, width=width, layout=layout)
    given = replace(given, multiple=multiple, least=least)
    asked = {name: getattr(options, name) for name in ("fit", "fill", "resize", "interpolation")}
    if options.fit == LETTERBOX and options.fill is None:
        asked["fill"] = _BORDER
    given = replace(given, **{name: value for name, value in asked.items() if value is not None})
    if options.resize is not None and given.fit != CROP:
        raise SourceError(
            f"resize is of a crop, and {given.fit} resizes to the input's size: leave out resize, "
            "or say fit='crop'"
        )
    if options.fill is not None and given.fit == SQUASH:
        raise SourceError("squash leaves no border: leave out fill, or say fit='letterbox'")
    try:
        given.check()
    except ValueError as error:
        raise SourceError(str(error)) from error
    return given


def describe(
    found: Source,
    canonical: Canonical,
    options: ExportOptions,
    method: Method,
    parameters: Mapping[str, Any],
    ends: Sequence[Collection[ir.Value]],
    excepted: Collection[ir.Value],
    by: ByValues | None = None,
) -> Metadata:
    """The file's metadata, but for what the backward pass costs.

    Args:
        parameters: of the method.
        ends: where the sweep of each of the method's parts ends.
        excepted: the values of the operators that keep their gradient's rule.
        by: what it is explained by, where that is not the image.

    Raises:
        SourceError: a mean, a deviation or labels that do not fit the network.
    """
    image, pre, values = canonical.model.graph.inputs[0], NO_IMAGE, Values()
    if by is None:
        pre = preprocessing(
            image, found.preprocessing, options, canonical.multiple, canonical.least
        )
    else:
        values = described(canonical.model.graph, by, canonical.roots, canonical.inputs)
    labels = found.labels if options.labels is None else tuple(options.labels)
    if canonical.logits:
        _check_labels(labels, size_of(canonical.model.graph.outputs[0], 1))
    graph, sweeps = canonical.model.graph, [*zip(method.parts, ends, strict=True)]
    replaced, ordinary = _nonlinear(graph, sweeps, excepted)
    return Metadata(
        version=__version__,
        method=method.name,
        kind=method.kind,
        ascent=method.ascent,
        parameters=parameters,
        source=found.name,
        weights=found.weights,
        preprocessing=pre,
        activation=canonical.activation,
        labels=labels,
        multiply_adds={"forward": multiply_adds(canonical.model.graph)},
        patterns=canonical.patterns,
        replaced=replaced,
        ordinary=ordinary,
        ranges={
            own.name: own.range
            for own in method.parameters
            if own.name in options.live and own.range != Range()
        },
        values=values,
        notes=(
            *([by.note] if by is not None and by.note else ()),
            *_notes(image, found, canonical, options, pre),
            *(note for sweep in sweeps for note in _as_gradient(graph, *sweep, excepted)),
        ),
    )


def explaining(metadata: Metadata, objective: Objective, fit: Fit) -> Metadata:
    """The metadata of a file that explains another objective than a classifier's.

    Raises:
        SourceError: labels for other classes than it has.
    """
    labels = metadata.labels if fit.classes else ()
    _check_labels(labels, fit.classes)
    found = objective.described(fit)
    chosen = "".join(f"; {name}={value}" for name, value in found.settings.items())
    why = f"explained: {objective.name}, as {fit.why}{chosen}"
    return replace(
        metadata,
        labels=labels,
        activation=fit.activation or "softmax",
        objective=found,
        notes=(why, *metadata.notes),
    )


def looking(
    metadata: Metadata, layers: Sequence[Layer], attended: Attended | None = None
) -> Metadata:
    """The metadata of a map, if it is one: of what tokens it is made."""
    names = as_asked(metadata.parameters)["layer"] if layers else []
    notes = [
        f"the map is of {name} {layer.value.shape}, {layer.tokens.in_words}"
        for name, layer in zip(names, layers, strict=True)
        if layer.tokens is not None
    ]
    notes += [attended.in_words] if attended is not None else []
    return replace(metadata, notes=(*metadata.notes, *notes))


def estimated(metadata: Metadata, estimator: Estimator | None, values: Sampling) -> Metadata:
    """The metadata of a file whose explanation an estimator puts together, if one does."""
    if estimator is None:
        return metadata
    found = estimator.described(values)
    return replace(metadata, kind=estimator.kinds[metadata.kind], estimator=found)


def _check_labels(labels: Sequence[str], classes: int) -> None:
    if labels and len(labels) != classes:
        raise SourceError(f"{len(labels)} labels for {classes} classes")


_NONLINEAR = (
    *(Kind.RECTIFIER, Kind.ACTIVATION, Kind.FUNCTION, Kind.NORMALISATION, Kind.WEIGHTS),
    *(Kind.EXTREMUM, Kind.MAXIMUM, Kind.RECURRENT, Kind.OTHER),
)


_Active: TypeAlias = set[ir.Value | None]


def _nonlinear(
    graph: ir.Graph,
    sweeps: Sequence[tuple[Method, Collection[ir.Value]]],
    excepted: Collection[ir.Value],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The layers of the nonlinear operations that sweeps pass, by the names of their patterns:
    those whose derivative a method replaces, and those that keep it."""
    last = {path: node for node in graph.all_nodes() for path in modules_of(node)}
    passed: dict[ir.Node, bool] = {}
    for sweep in sweeps:
        for node, active, replaces in _passed(graph, *sweep, excepted):
            if _is_nonlinear(node, active):
                passed[node] = passed.get(node, False) or replaces
    replaced: dict[str, list[str]] = {}
    ordinary: dict[str, list[str]] = {}
    for node, replaces in passed.items():
        value = node.outputs[0]
        home = home_of(value)
        where = home if last.get(home, node) is node else f"{home}/{value.name}"
        (replaced if replaces else ordinary).setdefault(pattern_of(node), []).append(where)
    return replaced, ordinary


def _is_nonlinear(node: ir.Node, active: Collection[ir.Value | None]) -> bool:
    """Whether what a node makes of values that depend on the image is not linear in them; products
    with gates and with attention's weights count as these alone."""
    row = row_of(operator_name(node))
    if node.op_type == "Where":
        return node.inputs[0] in active
    if node.op_type in ("Div", "Pow") and node.inputs[1] in active:
        return True
    if row.kind is Kind.PRODUCT:
        factors = [x for x in node.inputs if x in active and not is_weight(x)]
        return len(factors) > 1 or node.op_type == "Pow"
    return node.op_type == "TopK" or (row.kind in _NONLINEAR and row.linear is Linear.NONE)


def _passed(
    graph: ir.Graph, method: Method, at: Collection[ir.Value], excepted: Collection[ir.Value]
) -> Iterator[tuple[ir.Node, _Active, bool]]:
    """The nodes that the sweep passes, in bodies too; the values there that depend on those `at`
    which it ends; and whether the method has a rule of its own for the node."""
    rules = by_name(method.overrides if method.relevance is None else method.relevance)
    for node, active in _dependent(graph, dependents(graph, at)):
        name = operator_name(node)
        keeps = name not in rules or node.outputs[0] in excepted
        # It differs from the gradient's by attention's weights alone, which count themselves.
        keeps |= rules.get(name) is product
        keeps |= name == "Clip" and method.relevance is None and not is_rectifier(node)
        yield node, active, not keeps


def _dependent(graph: ir.Graph, active: _Active) -> Iterator[tuple[ir.Node, _Active]]:
    """The nodes of a graph, and of bodies in it, that depend on active values; with those."""
    for node in graph:
        if depends(node, active):
            yield node, active
            for body in bodies(node):
                yield from _dependent(body, active_within(node, body, active))


def _as_gradient(
    graph: ir.Graph, method: Method, at: Collection[ir.Value], excepted: Collection[ir.Value]
) -> Iterator[str]:
    """What the user should know of a method that finds nothing to change in a network."""

    def replaces(other: Method) -> bool:
        return any(replaced for _, _, replaced in _passed(graph, other, at, excepted))

    if method.relevance is not None or not method.overrides or replaces(method):
        return
    others = [m.name for m in METHODS.values() if m.kind == method.kind and replaces(m)]
    advice = f"; {' and '.join(others)} would replace some" if others else ""
    yield (
        f"{method.name} replaces no derivative of this network, and gives what gradient "
        f"gives{advice}"
    )


def _notes(
    image: ir.Value,
    found: Source,
    canonical: Canonical,
    options: ExportOptions,
    pre: Preprocessing,
) -> Iterator[str]:
    """What the user should know: a fixed batch with its reason, a normalisation taken on trust."""
    batch = dims(image)[0]
    if isinstance(batch, int):
        reason = found.fixed_batch or canonical.fixed_batch
        yield f"the graph takes batches of {batch} alone{f': {reason}' if reason else ''}"
    elif any(node.op_type == "DynamicSteps" for node in canonical.model.graph.all_nodes()):
        yield (
            "quantised dynamically: as in the source, scales are those of all images of a batch; "
            "explain them one by one for what each is alone"
        )
    if canonical.left_out:
        yield (
            f"left out: {', '.join(canonical.left_out)}, the same for every image, or of whole "
            "numbers that cannot be had with the batch that is explained"
        )
    told = options.mean is not None or options.std is not None or options.scale != 1
    if found.preprocessing is None and not told and pre is not NO_IMAGE:
        yield (
            f"assumed ImageNet's mean {pre.mean} and std {pre.std}; if the network wants others, "
            "give mean= and std="
        )
    if _taken_for_classifier(found, canonical, options):
        yield (
            f"nothing shows that the output '{canonical.logits}' holds classes' logits; if it is "
            "an embedding or a regression, say objective='embedding' or objective='value'"
        )


def _taken_for_classifier(found: Source, canonical: Canonical, options: ExportOptions) -> bool:
    """Whether a file's numbers were taken for logits, which has neither labels nor a Softmax."""
    told = found.labels or options.labels or options.objective is not None
    is_file = isinstance(found.original, Path)
    return is_file and bool(canonical.logits) and not canonical.shown and not told


def on_processor(graph: ir.Graph) -> Iterator[str]:
    """What the user should know of a finished graph: where it computes otherwise than it says."""
    if {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.all_nodes()}:
        yield (
            "quantised; on a processor without VNNI, onnxplain has ONNX Runtime compute it in "
            "float32; where another program runs the file there, set session.disable_quant_qdq=1"
        )
    found = Counter(
        node.op_type
        for node, _ in _dependent(graph, dependents(graph, graph.inputs))
        if not row_of(operator_name(node)).on_cuda
    )
    if found:
        names, many = ", ".join(sorted(found)), found.total()
        yield (
            f"{many} {'nodes run' if many > 1 else 'node runs'} on the processor under ONNX "
            f"Runtime's CUDA provider: {names}"
        )
