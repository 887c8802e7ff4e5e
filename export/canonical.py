"""The canonical forward: one opset, one spelling, static shapes but for the batch.

What the sweep can rely on afterwards: opset ≥ 20, no functions, every weight and constant an
initializer, BatchNormalization folded into the convolution before it, dead nodes gone, ranks and
sizes known, one input named `image` and one output named `logits` [N, classes].
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx.version_converter
import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import common
from onnxscript import GraphBuilder, rewriter

from onnxplain.contract import IMAGE, LOGITS
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.tensors import attribute, dims, size_of, static

OPSET, IR_VERSION = 20, 9


def canonicalise(
    model: ir.Model,
    size: tuple[int, int] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
) -> tuple[ir.Model, str]:
    """Bring a classifier's forward graph to the canonical form; the model given is consumed.

    Args:
        size: height and width, for an input that leaves them open.
        input_name: the image input, where there are several.
        output_name: the logits, where there are several outputs; any float value [N, classes].

    Returns:
        The model, and the activation that the logits had after them, "softmax" or "sigmoid":
        how they become probabilities.

    Raises:
        SourceError: no single image-like input, no logits, an opset or sizes out of reach; the
            message names what was found and what to pass.
    """
    model = raise_opset(model)
    common.RemoveInitializersFromInputsPass()(model)
    image = choose_image(model.graph, input_name)
    fix_sizes(image, size)
    choose_logits(model.graph, output_name)
    for value in list(model.graph.initializers.values()):
        if value.name and value.name.startswith(("const_", "pullback.")):
            value.name = f"source.{value.name}"  # these names are the builder's own
    spell_ceil_mode(model)
    onnxscript.optimizer.optimize_ir(model)
    common.IdentityEliminationPass()(model)
    spell_relu(model)
    common.ShapeInferencePass()(model)
    graph = model.graph
    image = drop_other_inputs(graph)
    logits, activation = before_activation(graph.outputs[0])
    logits = flatten_logits(graph, logits)
    if logits not in dependents(graph, [image]):
        raise SourceError(f"the output {graph.outputs[0].name!r} does not depend on the image")
    graph.outputs[:] = [logits]
    common.RemoveUnusedNodesPass()(model)
    rename(image, IMAGE)
    rename(logits, LOGITS)
    return model, activation


def choose_image(graph: ir.Graph, name: str | None) -> ir.Value:
    """The image input: the one named, or the only one with three or four dimensions and floats."""
    named = {str(value.name): value for value in graph.inputs}
    listing = ", ".join(f"{n} {v.dtype}{v.shape}" for n, v in named.items()) or "none"
    if name is not None:
        if name not in named:
            raise SourceError(f"no input {name!r}; the inputs are: {listing}")
        chosen = named[name]
        if not _like_an_image(chosen):
            raise SourceError(f"input {name!r} is no float tensor [N, C, H, W]: {listing}")
    else:
        images = [value for value in graph.inputs if _like_an_image(value)]
        if not images:
            raise SourceError(
                f"no image-like input (float, [N, C, H, W] or [N, H, W, C]); inputs: {listing}"
            )
        if len(images) > 1:
            raise SourceError(f"several image-like inputs, choose one with --input: {listing}")
        chosen = images[0]
    graph.inputs.remove(chosen)
    graph.inputs.insert(0, chosen)
    return chosen


def _like_an_image(value: ir.Value) -> bool:
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return floating and value.shape is not None and len(value.shape) == 4


def image_axes(image: ir.Value) -> tuple[int, int, int]:
    """Which axes are height, width and channels: the channels are 1 or 3, first if in doubt."""
    first, last = dims(image)[1], dims(image)[3]
    return (1, 2, 3) if last in (1, 3) and first not in (1, 3) else (2, 3, 1)


def image_size(image: ir.Value) -> tuple[int, int, int]:
    """Height, width and channels of a canonical graph's input."""
    height, width, channels = (size_of(image, axis) for axis in image_axes(image))
    return height, width, channels


def fix_sizes(image: ir.Value, size: tuple[int, int] | None) -> None:
    """Fill in open sizes of the image; only the batch may stay dynamic."""
    shape = dims(image)
    *spatial, channels = image_axes(image)
    for axis, wanted in zip(spatial, size or (None, None), strict=True):
        given = shape[axis]
        if not isinstance(given, int):
            if wanted is None:
                raise SourceError(
                    f"the input {image.name!r} leaves its size open, {image.shape}; fix it with "
                    "--size HEIGHT"
                )
            shape[axis] = wanted
        elif wanted is not None and wanted != given:
            raise SourceError(f"the network's input is fixed at {image.shape}; --size can't differ")
    if not isinstance(shape[channels], int):
        shape[channels] = 3
    if not isinstance(shape[0], int):
        shape[0] = ir.SymbolicDim("batch")
    image.shape = ir.Shape(shape)


def choose_logits(graph: ir.Graph, name: str | None) -> None:
    """Make the logits the graph's only output."""
    if name is None:
        if len(graph.outputs) != 1:
            names = ", ".join(str(value.name) for value in graph.outputs)
            raise SourceError(f"several outputs, choose the logits with --output: {names}")
        return
    values = {v.name: v for node in graph for v in node.outputs}
    if name not in values:
        outputs = ", ".join(str(value.name) for value in graph.outputs)
        raise SourceError(f"no value {name!r} in the network; its outputs are: {outputs}")
    graph.outputs[:] = [values[name]]


def raise_opset(model: ir.Model) -> ir.Model:
    """The same model at opset 20 or newer."""
    version = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
    if version >= OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(ir.to_proto(model), OPSET)
    except Exception as error:
        raise SourceError(f"cannot raise opset {version} to {OPSET}: {error}") from error
    model = ir.from_proto(raised)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model


def spell_relu(model: ir.Model) -> None:
    """`Max(x, 0)` and `Clip(x, 0)`, as `clamp(min=0)` is exported, become `Relu(x)`."""

    def clip(op: Any, x: ir.Value, zero: ir.Value) -> Any:
        return op.Clip(x, zero)

    def maximum(op: Any, x: ir.Value, zero: ir.Value) -> Any:
        return op.Max(x, zero)

    def relu(op: Any, x: ir.Value, **_: ir.Value) -> Any:
        return op.Relu(x)

    def is_zero(_: Any, zero: ir.Value, **__: ir.Value) -> bool:
        tensor = ir.convenience.get_const_tensor(zero)
        return tensor is not None and tensor.size == 1 and not tensor.numpy().any()

    rules = [rewriter.pattern.RewriteRule(spelling, relu, is_zero) for spelling in (clip, maximum)]
    rewriter.rewrite(model, rewriter.pattern.RewriteRuleSet(rules, commute=True))


def spell_ceil_mode(model: ir.Model) -> None:
    """A pool's `ceil_mode` as padding at the end, where that means the same.

    So nobody can differ on how many windows there are: those that start before the end padding,
    as in PyTorch and in every runtime. Shape inference at opset 20 counts one that starts in it;
    where it did, what it found from there on is inferred again.
    """
    for node in model.graph:
        padding_counts = attribute(node, "count_include_pad", 0)
        pools = node.op_type == "MaxPool" or (node.op_type == "AveragePool" and not padding_counts)
        if not (pools and attribute(node, "ceil_mode", 0)):
            continue
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        if x.shape is None:
            common.ShapeInferencePass()(model)
        kernel = node.attributes.get_ints("kernel_shape")
        ones: list[int] = [1] * len(kernel)
        strides = node.attributes.get_ints("strides", ones)
        dilations = node.attributes.get_ints("dilations", ones)
        pads = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
        out, ends = [], []
        for i, n in enumerate(static(x, 2)):
            span, stride = (kernel[i] - 1) * dilations[i] + 1, strides[i]
            reached = n + pads[i]
            windows = -(-(reached + pads[len(kernel) + i] - span) // stride) + 1
            windows -= (windows - 1) * stride >= reached
            out.append(windows)
            ends.append(max((windows - 1) * stride + span - reached, 0))
        if any(end >= k for end, k in zip(ends, kernel, strict=True)):
            continue  # more padding than runtimes accept
        node.attributes.add(ir.AttrInt64s("pads", [*pads[: len(kernel)], *ends]))
        node.attributes.add(ir.AttrInt64("ceil_mode", 0))
        if y.shape is None or list(y.shape)[2:] != out:
            for stale in dependents(model.graph, [y]):
                if stale is not None:
                    stale.shape = None
            common.ShapeInferencePass()(model)


def drop_other_inputs(graph: ir.Graph) -> ir.Value:
    """The image alone as input; the others must not matter to the logits."""
    image, *others = graph.inputs
    needed = [str(value.name) for value in others if value.uses()]
    if needed:
        raise SourceError(
            f"the logits depend on {', '.join(needed)} besides {image.name!r}; make them "
            "initializers (constants) of the graph first"
        )
    graph.inputs[:] = [image]
    return image


def before_activation(output: ir.Value) -> tuple[ir.Value, str]:
    """The input of a final Softmax over the classes or Sigmoid, else the output itself.

    It is seen through reshapes and casts. Without one, the output is taken for logits of a softmax.
    """
    node = output.producer()
    while node is not None and node.op_type in _TRANSPARENT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is not None and node.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
        x = node.inputs[0]
        assert x is not None
        if node.op_type == "Sigmoid":
            return x, "sigmoid"
        axis = attribute(node, "axis", -1)
        wide = [i for i, size in enumerate(dims(x)) if size != 1 and i > 0]
        if wide == [axis % len(dims(x))]:
            return x, "softmax"
    return output, "softmax"


_TRANSPARENT = ("Reshape", "Flatten", "Squeeze", "Identity", "Cast")


def flatten_logits(graph: ir.Graph, logits: ir.Value) -> ir.Value:
    """[N, classes, 1, 1] → [N, classes]."""
    shape = dims(logits)
    if len(shape) > 2 and all(size == 1 for size in shape[2:]):
        logits = GraphBuilder(graph).op.Flatten(logits, axis=1)
        shape = shape[:2]
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise SourceError(
            f"the output {logits.name!r} has the shape {logits.shape}, not [N, classes]; choose "
            "the logits with --output"
        )
    return logits


def rename(value: ir.Value, name: str) -> None:
    """Give a value its name in the contract, moving aside one that has it already."""
    assert value.graph is not None
    taken = [v for node in value.graph for v in node.outputs if v.name == name]
    taken += [v for v in value.graph.initializers.values() if v.name == name]
    for other in taken:
        if other is not value:
            other.name = f"source.{name}"
    value.name = name
