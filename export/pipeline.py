"""From a network to an explain graph: the one path through this package."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.contract.explain import PULLBACK, TARGET, TEMPERATURE, Metadata, Preprocessing
from onnxplain.errors import InputError, SourceError
from onnxplain.export.ascent import add_step
from onnxplain.export.ascent import unroll as add_unrolled
from onnxplain.export.autodiff import pull_back
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.composites import inline
from onnxplain.export.count import multiply_adds
from onnxplain.export.heads import activation_map, one_hot
from onnxplain.export.large import is_large, write_large
from onnxplain.export.layers import last_spatial, layer_name, spatial_layer, value_named
from onnxplain.export.lower import lower
from onnxplain.export.methods import Method, get_method
from onnxplain.export.methods.method import Temperature
from onnxplain.export.sources.source import Source, read
from onnxplain.export.tensors import dims
from onnxplain.export.vjps.precision import operator_precision
from onnxplain.export.vmap import vmap
from onnxplain.files import replacing
from onnxplain.kernels.calls import keep_calls
from onnxplain.kernels.functions import KernelBuilder
from onnxplain.version import __version__

if TYPE_CHECKING:
    import torch

STAGES = ("reading the network", "canonical forward", "backward", "checking", "writing")
"""What `progress` is told of, in this order."""


def export(
    source: str | os.PathLike[str] | torch.nn.Module | torch.export.ExportedProgram,
    path: str | os.PathLike[str],
    *,
    method: str = "excitation",
    temperature: float | None = None,
    weights: str = "DEFAULT",
    example: Any = None,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    multi_target: bool = False,
    live_temperature: bool = False,
    step: bool = False,
    unroll: int | None = None,
    kernels: bool = False,
    input: str | None = None,
    output: str | None = None,
    layer: str | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Metadata:
    """Write a network's explain graph: image and target in, logits and pullback out.

    Args:
        source: where the network comes from.
            An `.onnx` file.
            A name: `efficientnet-lite0`; a torchvision classifier, `resnet50`; or one of timm's,
            `timm/pvt_v2_b1`, `timm/resnet50.a1_in1k`.
            A `torch.nn.Module` float [N, C, H, W] → [N, classes] (a tensor, or an output with
            `.logits` as Hugging Face's classifiers have), which is left as it was.
            A folder that `save_pretrained` of a Hugging Face classifier wrote.
            TorchScript or a `torch.export` program, as an object or a file (.pt, .pth, .pt2).
        path: the ONNX file to write. An existing file is replaced once the new one is complete.
        method: one of `onnxplain.export.METHODS`.
        temperature: of a method that has one; its own default when None.
        weights: for a name: "DEFAULT", "none", or a checkpoint's path.
        example: for a module: a tensor [N, C, H, W] like its inputs, where neither it (timm's and
            Hugging Face's do) nor `size` says what they are.
        size: height and width in pixels, or one number for both, where the source leaves it open.
        mean, std: one number per channel, for pixel values in [0, 1]; by default what the source
            says, else ImageNet's.
        labels: the names of the classes, in order.
        multi_target: let `target` be [N, K]: K explanations of each image from one forward pass.
        live_temperature: make the temperature an input of the graph.
        step: add one step of feature accentuation: the output `next_image`, from the inputs
            `origin`, `alpha`, `eps` and `limit` (see `onnxplain.export.ascent`).
        unroll: the number of steps of a graph that accentuates in one call instead of explaining.
        kernels: keep the operations of `onnxplain.kernels` as calls of functions in the file, for a
            runtime that has kernels for them; others run the functions' bodies (OpenVINO cannot).
        input, output: names of the image and the logits, where an ONNX source has several.
        layer: for a class activation map, where to look: the path of a submodule ("layer4.2") of a
            module or named network, the name of a value or node of an ONNX file. By default the
            last value with spatial extent, which the metadata name.
        progress: called with each of `STAGES` as it begins.

    Returns:
        The metadata that the file carries.

    Raises:
        SourceError: the network cannot be read or exported; `NoRuleError` names an operator.
        InputError: the path cannot be written, or is the source itself.
    """
    chosen = get_method(method)
    values = chosen.values({} if temperature is None else {TEMPERATURE: temperature})
    if live_temperature and not chosen.has_temperature:
        raise SourceError(f"method {method!r} has no temperature to make live")
    if step and unroll is not None:
        raise SourceError("step is one step, unroll all of them: choose one")
    if (step or unroll is not None) and multi_target:
        raise SourceError("an ascent follows one target per image; leave out multi_target")
    if unroll is not None and unroll < 1:
        raise SourceError(f"unroll at least one step, not {unroll}")
    if layer is not None and chosen.activation_map is None:
        raise SourceError(f"method {method!r} goes down to the image; leave out the layer")
    if (step or unroll is not None) and chosen.activation_map is not None:
        raise SourceError(f"an ascent needs a pullback of the image; {method!r} gives a map alone")
    if (step or unroll is not None) and chosen.relevance is not None:
        raise SourceError(
            f"{method!r} gives relevances, not a direction in which to change the image: ascend "
            "along another method, such as excitation"
        )
    path = writable(path, source)
    sizes = (size, size) if isinstance(size, int) else size

    progress(STAGES[0])
    found = read(source, weights, example, sizes, () if layer is None else (layer,))
    progress(STAGES[1])
    kept = [str(value_named(found.model.graph, name).name) for name in found.layers]
    canonical = canonicalise(found.model, sizes, input, output, keep=kept)
    model = canonical.model
    forward = multiply_adds(model.graph)
    at = model.graph.inputs[0]
    parameters: dict[str, Any] = chosen.noted(values)
    if chosen.activation_map is not None:
        at = spatial_layer(model.graph, kept[0]) if kept else last_spatial(model.graph)
        parameters["layer"] = layer or layer_name(at)
    progress(STAGES[2])
    pre = preprocessing(model.graph.inputs[0], found.preprocessing, mean, std)
    names = found.labels if labels is None else tuple(labels)
    names = _labels(model.graph.outputs[0], names)
    op, seed = add_pullback(
        model,
        chosen,
        values,
        at,
        multi_target=multi_target,
        live_temperature=live_temperature,
        kernels=kernels,
    )
    if step:
        add_step(op, pre)
    if unroll is not None:
        add_unrolled(op, unroll, seed, pre)
    clean(model)
    progress(STAGES[3])
    metadata = Metadata(
        version=__version__,
        method=chosen.name,
        parameters=parameters,
        source=found.name,
        preprocessing=pre,
        activation=canonical.activation,
        labels=names,
        multiply_adds={"forward": forward, "explain": multiply_adds(model.graph)},
        patterns=canonical.patterns,
        notes=_notes(
            model.graph.inputs[0],
            replace(found, fixed_batch=found.fixed_batch or canonical.fixed_batch),
            pre,
            mean,
            std,
        ),
    )
    model.producer_name, model.producer_version = "onnxplain", __version__
    model.metadata_props.update(metadata.to_props())
    write(model, path, lambda: progress(STAGES[4]))
    return metadata


def add_pullback(
    model: ir.Model,
    method: Method,
    values: Mapping[str, float | None],
    at: ir.Value,
    *,
    multi_target: bool = False,
    live_temperature: bool = False,
    kernels: bool = False,
) -> tuple[OpBuilder, ir.Value]:
    """Add the backward pass to a canonical forward graph, in place (the contract: design §2).

    Args:
        values: of the method's parameters.
        at: where it stops: the image, or a layer for a method with an activation map.

    Returns:
        The builder that what comes after must use too (it knows the names that are taken), and
        the cotangent of the logits, which holds the target.
    """
    graph = model.graph
    (image,), (logits,) = graph.inputs, graph.outputs
    builder = KernelBuilder(graph) if kernels else GraphBuilder(graph)
    builder.push_module("pullback")
    op = builder.op
    batch = dims(image)[0]
    shape = [batch, ir.SymbolicDim("targets")] if multi_target else [batch]
    target = builder.input(TARGET, ir.DataType.INT64, shape)
    taken: dict[str, Temperature | None] = dict(values)
    if live_temperature:
        taken[TEMPERATURE] = builder.input(TEMPERATURE, image.dtype, [])

    cotangent = one_hot(op, logits, target)
    if multi_target:
        K = op.Shape(target, start=1, end=2)
        several = op.Transpose(cotangent, perm=[1, 0, 2])
        cotangent = op.Squeeze(op.Slice(cotangent, [0], [1], [1]), [1])  # one of them, to trace
    head = len(graph)
    (pullback,) = pull_back(op, {logits: cotangent}, [at], method.rules(taken, op))
    if multi_target:
        backward = list(graph)[head:]
        head = len(graph)
        pullback = vmap(op, backward, {cotangent: several}, K)[pullback]
    if method.times_input:
        pullback = op.Mul(pullback, image)
    shape += dims(image)[1:]
    if method.activation_map is not None:
        channels = image_axes(image)[2]
        shape[channels - 4] = 1
        nhwc = channels == 3
        pullback = activation_map(op, method.activation_map, at, pullback, image, nhwc)
    elif multi_target:
        pullback = op.Transpose(pullback, perm=[1, 0, 2, 3, 4])
    end = op.Identity(pullback)  # a use by which to find the last node's lowered form
    if isinstance(builder, KernelBuilder):
        keep_calls(model, builder)
    lower(op, list(graph)[head:])
    pullback = end if pullback is image else end.producer().inputs[0]
    graph.sort()
    pullback.name = PULLBACK
    graph.outputs.append(pullback)
    pullback.shape = ir.Shape(shape)
    return op, cotangent


def clean(model: ir.Model) -> None:
    """Standard operators alone; drop what nothing needs, share what is computed twice; shapes.

    The model then says how its operators compute in half precision.
    """
    inline(model)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.NameFixPass(),
        common.ShapeInferencePass(),
    ):
        step(model)
    model.metadata_props.update(operator_precision(model).to_props())


def write(model: ir.Model, path: Path, checked: Callable[[], None] = lambda: None) -> None:
    """Check a finished model and write it, as a whole or not at all.

    `checked` is called between the two, except where a model is so large that it is written first.

    Raises:
        SourceError: it does not pass `onnx.checker`.
        InputError: the path cannot be written.
    """
    if is_large(model):
        checked()
        write_large(model, path)
        return
    proto = checked_proto(model)
    checked()
    with replacing(path) as beside:
        beside.write_bytes(proto.SerializeToString())


def checked_proto(model: ir.Model) -> onnx.ModelProto:
    """The finished model as one message, weights from a source's data files included.

    Raises:
        SourceError: it does not pass `onnx.checker` with full shape inference, which is a defect
            of onnxplain.
    """
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise SourceError(f"the explain graph is not valid ONNX: {error}") from error
    return proto


def preprocessing(
    image: ir.Value,
    given: Preprocessing | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """What the source says, or the user; ImageNet's where neither does."""
    height, width, channels = image_size(image)
    if given is None:
        # Of the longer side, so that a wide crop lies within any photograph.
        given = Preprocessing(height, width, resize=round(max(height, width) * 256 / 224))
        if channels != given.channels:
            given = replace(given, mean=(0.5,) * channels, std=(0.5,) * channels)
    if mean is not None:
        given = replace(given, mean=tuple(float(value) for value in mean))
    if std is not None:
        given = replace(given, std=tuple(float(value) for value in std))
    if not np.isfinite([*given.mean, *given.std]).all() or min(given.std) <= 0:
        raise SourceError(f"mean and std must be finite, std positive: {given.mean}, {given.std}")
    if not len(given.mean) == len(given.std) == channels:
        raise SourceError(
            f"mean and std have {len(given.mean)} and {len(given.std)} entries; the network's "
            f"input has {channels} channels"
        )
    layout = "NCHW" if dims(image)[1] == channels else "NHWC"
    return replace(given, height=height, width=width, layout=layout)


def _notes(
    image: ir.Value,
    found: Source,
    pre: Preprocessing,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[str, ...]:
    """What the user should know: a fixed batch with its reason, a normalisation taken on trust."""
    notes = []
    batch = dims(image)[0]
    if isinstance(batch, int):
        why = f": {found.fixed_batch}" if found.fixed_batch else ""
        notes.append(f"the graph takes batches of {batch} alone{why}")
    if found.preprocessing is None and mean is None and std is None:
        notes.append(
            f"assumed ImageNet's mean {pre.mean} and std {pre.std}; if the network wants others, "
            "give --mean and --std"
        )
    return tuple(notes)


def _labels(logits: ir.Value, labels: tuple[str, ...]) -> tuple[str, ...]:
    classes = dims(logits)[1]
    if labels and len(labels) != classes:
        raise SourceError(f"{len(labels)} labels for {classes} classes")
    return labels


def writable(path: str | os.PathLike[str], source: Any) -> Path:
    """The output path, checked before the long work."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file a name")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission in {path.parent}")
    is_file = isinstance(source, str | os.PathLike) and Path(source).exists()
    if is_file and path.exists() and path.samefile(source):
        raise InputError(f"{path} is the source itself; write the explain graph elsewhere")
    return path
