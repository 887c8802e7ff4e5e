"""From a network to an explain graph: the one path through this package."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from onnxplain.comparison import COMPARISONS
from onnxplain.contract.combinations import combined
from onnxplain.contract.explain import (
    ALPHA,
    EPS,
    IMAGE,
    LIMIT,
    METHOD,
    OPTIONAL_INPUTS,
    ORIGIN,
    PULLBACK,
    Metadata,
)
from onnxplain.contract.objective import CONCEPT_RELEVANCE, CONCEPTS, MASK
from onnxplain.contract.picture import PICTURE, TOP_CLASSES, TOP_PROBABILITIES, PictureOptions
from onnxplain.contract.pixels import PULLBACK_SCALE
from onnxplain.contract.request import BGR, ExportOptions, joined
from onnxplain.contract.values import Values
from onnxplain.errors import SourceError
from onnxplain.export.ascent import add_step, unroll
from onnxplain.export.attended import Attended, attention_of
from onnxplain.export.attentions import attentions_of
from onnxplain.export.backward import Added, add_pullback, ends_of
from onnxplain.export.budget import within
from onnxplain.export.camera import is_camera, put_out, see
from onnxplain.export.canonical.canonicalise import Canonical, canonicalise
from onnxplain.export.canonical.ends import make_way
from onnxplain.export.canonical.values import canonicalise_values
from onnxplain.export.compared import compared
from onnxplain.export.concepts import Concepts, behind_norm, concepts_of, conditional
from onnxplain.export.count import at_usual_size, multiply_adds
from onnxplain.export.describe import describe, estimated, explaining, looking, on_processor
from onnxplain.export.drawn import add_picture, add_ranking, is_drawn
from onnxplain.export.estimators.estimate import estimate
from onnxplain.export.estimators.estimator import Estimator, Sampling
from onnxplain.export.explained import ByValues, check_options, explained_by
from onnxplain.export.finish import clean, write, written
from onnxplain.export.grids import Layer
from onnxplain.export.guard import own_errors
from onnxplain.export.known import suited, untuned
from onnxplain.export.layers import last_spatial, layer_name, spatial_layer, value_named
from onnxplain.export.lower import stay_on_gpu
from onnxplain.export.methods import Method
from onnxplain.export.methods.placement import by_weight, check_layers, layer_names
from onnxplain.export.methods.weighted import Pixels
from onnxplain.export.objectives import LOGIT, Fit, Objective
from onnxplain.export.objectives.recognise import chosen
from onnxplain.export.sources.source import Source, read
from onnxplain.export.validity import (
    check_objective,
    divided,
    estimator_of,
    live_of,
    method_of,
    objective_of,
    other_choices,
    parameters_of,
)
from onnxplain.files import writable
from onnxplain.options import by_keyword, check_types
from onnxplain.version import __version__

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("onnxplain")

Network: TypeAlias = "str | os.PathLike[str] | torch.nn.Module | torch.export.ExportedProgram"

STAGES = (
    *("reading the network", "canonical forward", "backward", "checking", "writing"),
    "comparing with the network",
)
"""What `progress` is told of, in this order."""


@by_keyword(ExportOptions)
def export(source: Network, path: str | os.PathLike[str], options: ExportOptions) -> Metadata:
    """Write a network's explain graph: image and target in, logits and pullback out; of networks
    that are no classifiers their own outputs, and the objective that is explained.

    Args:
        source: where the network comes from.
            An `.onnx` file.
            A name: `efficientnet-lite0`; a torchvision classifier, `resnet50`; or one of timm's,
            `timm/pvt_v2_b1`, `timm/resnet50.a1_in1k`.
            A `torch.nn.Module` float [N, C, H, W] → [N, classes] (a tensor, or an output with
            `.logits` as Hugging Face's classifiers have), or → any tensors; it is left as it was.
            A folder that `save_pretrained` of a Hugging Face classifier wrote.
            TorchScript or a `torch.export` program, as an object (a file is loaded by
            `onnxplain --trust export` alone).
        path: the ONNX file to write. An existing file is replaced once the new one is complete.
        options:

    Returns:
        The metadata that the file carries, and a note where the two cannot be compared. Its
        `notes` are what is good to know; the logger `onnxplain` is told of them too.

    Raises:
        SourceError: the network cannot be read or exported, or options do not go together;
            `NoRuleError` names an operator. Or the logits are others than the network's own.
        InputError: an option is of another type than declared; or the path cannot be written, or
            is the source itself.
    """
    check_types(options)
    path = writable(path, source)
    made = _derived(source, options)
    metadata, tell = made.metadata, options.progress
    with written(made.model, path, lambda: tell(STAGES[4])) as file:
        if options.check:
            tell(STAGES[5])
            given = file, made.found.original, options.input
            notes = compared(path, (partial(compare, *given) for compare in COMPARISONS))
            metadata = replace(metadata, notes=(*metadata.notes, *notes))
    for note in metadata.notes:
        logger.warning("%s", note)
    if (hint := untuned(options, method_of(options), source)) is not None:
        logger.info("%s", hint)
    return metadata


def export_plain(source: Network, path: str | os.PathLike[str], options: ExportOptions) -> Metadata:
    """Write the same graph without what makes it quick, for `export`'s to be compared with.

    Its backward pass is as the rules emit it (`onnxplain.export.lower`), and no factor is folded
    into the forward pass (`onnxplain.export.temperatures`). Arguments and errors are `export`'s.
    """
    made = _derived(source, options, plain=True)
    write(made.model, Path(path))
    return made.metadata


@dataclass(frozen=True)
class _Derived:
    """An explain graph that is not written yet, and what it was made from."""

    found: Source
    model: ir.Model
    metadata: Metadata


def _derived(source: Network, options: ExportOptions, plain: bool = False) -> _Derived:
    method = method_of(options)
    options = suited(options, method, source)
    estimator = estimator_of(method, options)
    given, sampling = divided(method, estimator, options)
    values = parameters_of(method, options, given)
    if options.times_image:
        method = replace(method, times_input=True)
    live, asked = live_of(method, options), objective_of(options)
    pixels, look = combined(options)
    classifier = None if asked is None else asked.cotangent is not None

    options.progress(STAGES[0])
    found = _network_of(source, options, classifier)
    method = replace(method, named=by_weight(method.named, found.model.graph))

    options.progress(STAGES[1])
    with within(options.budget), own_errors():
        by = explained_by(found.model.graph, options)
        canonical, layers, concepts, excepted = _canonical(found, options, method, classifier, by)
        model, roots = canonical.model, canonical.roots
        make_way(model.graph, [*live, *_other_names(options, estimator, sampling)])
        if by is not None:  # and the network's inputs stay beside the file's own
            make_way(model.graph, [*OPTIONAL_INPUTS, *(own.name for own in method.parameters)])
        objective, fit = asked or LOGIT, None
        if not canonical.logits:
            objective, fit = _objective(found, canonical, asked, options)
        layers, attended = _looked_at(model.graph, method, layers, fit)
        check_objective(objective, options)
        attentions = attentions_of(model.graph) if options.attentions else {}
        make_way(model.graph, attentions)
    parameters = {**method.noted(values, live), **_named(options, layers)}
    parameters |= other_choices(options, objective)

    options.progress(STAGES[2])
    with own_errors():
        ends = ends_of(method, layers, attended, roots)
        metadata = describe(found, canonical, options, method, parameters, ends, excepted, by)
        if fit is not None:
            metadata = explaining(metadata, objective, fit)
        metadata = conditional(looking(metadata, layers, attended), concepts)
        metadata = replace(estimated(metadata, estimator, sampling), pixels=pixels)
        added = add_pullback(
            model,
            method,
            values,
            {PULLBACK: roots[IMAGE]} if by is None else _pullbacks(metadata.values, roots),
            layers=layers,
            attended=attended,
            attentions=attentions,
            concepts=concepts,
            multi_target=options.multi_target,
            live=live,
            kernels=options.kernels,
            objective=objective,
            fit=fit,
            excepted=excepted,
            plain=plain,
            pixels=Pixels.of(metadata.preprocessing) if by is None else None,
        )
        _add_ascent(added, options, metadata)
        if not plain:
            stay_on_gpu(added.op)
        explain = None
        if estimator is not None:
            explain = estimate(model, added, estimator, sampling, objective, metadata.preprocessing)
        _add_shown(added, options, look, metadata)
        clean(model)

    options.progress(STAGES[3])
    with own_errors():
        if explain is None:
            own = (n for n in at_usual_size(model) if not (is_camera(n) or is_drawn(n)))
            explain = added.looped + multiply_adds(own)
        cost = {**metadata.multiply_adds, "explain": explain}
        notes = (*metadata.notes, *on_processor(model.graph))
    metadata = replace(metadata, multiply_adds=cost, notes=notes)
    model.producer_name, model.producer_version = "onnxplain", __version__
    model.metadata_props.update(metadata.to_props())
    return _Derived(found, model, metadata)


def _network_of(source: Network, options: ExportOptions, classifier: bool | None) -> Source:
    """
    Raises:
        SourceError: it cannot be read, or is an explain graph.
    """
    condition = () if options.concept_layer is None else (options.concept_layer,)
    layers = *options.layers, *condition
    how = options.weights, options.example, options.height_and_width, layers
    found = read(source, *how, classifier=classifier, any_size=options.any_size)
    if METHOD in found.model.metadata_props:
        raise SourceError(
            f"'{source}' is an explain graph already: give the network that it was made of, or "
            "load it as it is"
        )
    return found


def _objective(
    found: Source, canonical: Canonical, asked: Objective | None, options: ExportOptions
) -> tuple[Objective, Fit]:
    """What is explained of a network that is no classifier, and what that takes of its outputs."""
    model, settings = canonical.model, options.settings or {}
    labels = found.labels if options.labels is None else options.labels
    first = next(iter(canonical.roots.values()))
    objective, fit = chosen(model, asked, settings, labels, first)
    if make_way(model.graph, [one.name for one in objective.inputs]):
        objective, fit = chosen(model, objective, settings, labels, first)
    return objective, fit


def _looked_at(
    graph: ir.Graph, method: Method, layers: list[Layer], fit: Fit | None
) -> tuple[list[Layer], Attended | None]:
    """Of what a map is made: the layers asked for, or the last; or all attention."""
    of = [] if fit is None else [output.value for output in fit.outputs.values()]
    attended = None
    if method.attends:
        if of and any(part.by_layer for part in method.parts):
            raise SourceError(
                f"{method.name} has a classifier's head score the tokens of each layer, and of the "
                "network something else is explained; choose another method, such as "
                "transformer-attribution or gradcam"
            )
        attended = attention_of(graph, of or graph.outputs[:1], method)
    if method.makes_maps and not layers:
        layers = [last_spatial(graph, of)]
    return layers, attended


def _other_names(
    options: ExportOptions, estimator: Estimator | None, sampling: Sampling
) -> list[str]:
    """What is called so in the file, and nothing of the network's."""
    names = [ORIGIN, ALPHA, EPS, LIMIT] if options.ascends else []
    names += [PULLBACK_SCALE] if options.quantise_output else []
    names += [PICTURE] if options.picture is not None else []
    names += [TOP_CLASSES, TOP_PROBABILITIES] if options.topk is not None else []
    if options.concept_layer is not None:
        names += [CONCEPTS, CONCEPT_RELEVANCE]
    if estimator is not None:
        names += [*estimator.inputs(sampling), *(estimator.outputs or ())]
    return names


def _named(options: ExportOptions, layers: Sequence[Layer]) -> dict[str, Any]:
    """An activation map's layers, as the file names them."""
    names = options.layers or [layer_name(layer.value) for layer in layers]
    return {"layer": joined(names)} if layers else {}


def _add_ascent(added: Added, options: ExportOptions, metadata: Metadata) -> None:
    """A step of the ascent, or all of them, where they are asked for."""
    if options.step:
        add_step(added.op, metadata.preprocessing)
    if options.unroll is not None and added.hot is not None:
        pre, ascent = metadata.preprocessing, metadata.ascent
        unroll(added.op, options.unroll, added.hot, pre, ascent)


def _add_shown(
    added: Added, options: ExportOptions, look: PictureOptions | None, metadata: Metadata
) -> None:
    """A camera before the network, the ranking of the classes, the picture, and the pullback as it
    is put out, where they are asked for."""
    pre, pixels = metadata.preprocessing, metadata.pixels
    camera = see(added.op, pre, pixels) if pixels.format else None
    if options.topk is not None:
        add_ranking(added.op, options.topk, metadata.activation)
    if look is not None:
        regions = (name for name, one in metadata.objective.inputs.items() if one.kind == MASK)
        add_picture(added.op, look, pre, next(regions, None), camera)
    put_out(added.op, metadata, camera)


def _pullbacks(values: Values, roots: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The values that are explained, by the outputs that explain them."""
    return {one.pullback: roots[name] for name, one in values.explained.items()}


def _canonical(
    found: Source,
    options: ExportOptions,
    method: Method,
    classifier: bool | None,
    by: ByValues | None,
) -> tuple[Canonical, list[Layer], Concepts | None, list[ir.Value]]:
    """The canonical forward; an activation map's layers, where some are asked for; the one whose
    channels are a condition; and the values of the operators that keep their gradient's rule."""
    of_source, of_maps = found.model.graph, len(options.layers)
    values = [value_named(of_source, name) for name in found.layers]
    mapped = [str(value.name) for value in values[:of_maps]]
    conditions = [str(behind_norm(value).name) for value in values[of_maps:]]
    hard = [str(value_named(of_source, name).name) for name in options.excepted]
    keep = [*mapped, *conditions, *hard]
    known = layer_names(found.model.graph) if method.named else []
    sizes = options.sizes or {}
    if by is None:
        if sizes:
            raise SourceError("sizes= is of inputs that are no image; an image's is size=")
        canonical = canonicalise(
            found.model,
            found.size if options.any_size else options.height_and_width,
            options.input,
            options.output,
            keep=keep,
            classifier=classifier,
            bgr=options.channels == BGR,
            any_size=options.any_size,
        )
    else:
        is_traced = not isinstance(found.original, Path)
        check_options(options, method.makes_maps or method.attends, is_traced)
        canonical = canonicalise_values(
            found.model, by.names, options.output, keep, classifier, sizes
        )
    graph = canonical.model.graph
    if method.named:
        check_layers(method.named, [*known, *layer_names(graph)])
    computed = {str(y.name): y for node in graph for y in node.outputs}
    excepted = []
    for name, value in zip(options.excepted, hard, strict=True):
        if value not in computed:
            raise SourceError(f"{name!r} is no operator of its own in the simplified network")
        excepted.append(computed[value])
    layers = [spatial_layer(graph, name) for name in mapped]
    concepts = next((concepts_of(graph, name) for name in conditions), None)
    return canonical, layers if method.makes_maps else [], concepts, excepted
