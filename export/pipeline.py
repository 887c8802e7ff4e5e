"""From a network to an explain graph: the one path through this package."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxplain.contract.explain import TEMPERATURE, Metadata
from onnxplain.errors import SourceError
from onnxplain.export.ascent import add_step
from onnxplain.export.ascent import unroll as add_unrolled
from onnxplain.export.backward import add_pullback
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.count import multiply_adds
from onnxplain.export.describe import checked_labels, notes, preprocessing
from onnxplain.export.finish import clean, writable, write
from onnxplain.export.layers import last_spatial, layer_name, spatial_layer, value_named
from onnxplain.export.methods import get_method
from onnxplain.export.sources.source import read
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
    names = checked_labels(model.graph.outputs[0], names)
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
        notes=notes(
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
