"""The two ends of a network: which input is the image, and which outputs are explained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

from onnxplain.building import Builder
from onnxplain.contract.explain import IMAGE
from onnxplain.errors import SourceError
from onnxplain.export.canonical.axes import batch_axes
from onnxplain.export.tensors import attribute, dims, size_of, usual


def choose_image(graph: ir.Graph, name: str | None) -> ir.Value:
    """The image input: the one named, or the only one with three or four dimensions and floats."""
    named = {str(value.name): value for value in graph.inputs}
    listing = ", ".join(f"{n} {v.dtype}{v.shape}" for n, v in named.items()) or "none"
    if name is not None:
        if name not in named:
            raise SourceError(f"no input {name!r}; the inputs are: {listing}")
        chosen = named[name]
        if not like_an_image(chosen):
            raise SourceError(f"input {name!r} is no float tensor [N, C, H, W]: {listing}")
    else:
        images = [value for value in graph.inputs if like_an_image(value)]
        if not images:
            raise SourceError(
                f"no image-like input (float, [N, C, H, W] or [N, H, W, C]); inputs: {listing}"
            )
        if len(images) > 1:
            raise SourceError(
                "several image-like inputs, choose one with input=, or with wrt= what to "
                f"explain by, and all stay inputs: {listing}"
            )
        chosen = images[0]
    graph.inputs.remove(chosen)
    graph.inputs.insert(0, chosen)
    return chosen


def own_inputs(graph: ir.Graph) -> list[ir.Value]:
    """The inputs, without weights, which old files list among them."""
    return [x for x in graph.inputs if x.name not in graph.initializers]


def like_an_image(value: ir.Value) -> bool:
    """Whether it is a batch of floats with two axes and channels."""
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return floating and value.shape is not None and len(value.shape) == 4


def image_axes(image: ir.Value) -> tuple[int, int, int]:
    """The axes of height, width and channels. Channels are 1 or 3, and come first if in doubt."""
    first, last = dims(image)[1], dims(image)[3]
    return (1, 2, 3) if last in (1, 3) and first not in (1, 3) else (2, 3, 1)


def image_size(image: ir.Value) -> tuple[int, int, int]:
    """Height, width and channels of a canonical graph's input; open ones as they usually are."""
    sizes = usual(image)
    height, width, channels = (sizes[axis] or size_of(image, axis) for axis in image_axes(image))
    return height, width, channels


def fix_sizes(graph: ir.Graph, image: ir.Value, size: tuple[int, int] | None) -> None:
    """Fill in open sizes of the image, by name wherever they are; only the batch may stay open."""
    shape = dims(image)
    *spatial, channels = image_axes(image)
    for axis, wanted in zip(spatial, size or (None, None), strict=True):
        given = shape[axis]
        if not isinstance(given, int):
            if wanted is None:
                raise SourceError(
                    f"the input {image.name!r} leaves its size open, {image.shape}; fix it with "
                    "size=HEIGHT"
                )
            shape[axis] = wanted
        elif wanted is not None and wanted != given:
            raise SourceError(
                f"the network's input is fixed at {image.shape}; leave out the size, or compare "
                "on images of that one"
            )
    if not isinstance(shape[channels], int):
        shape[channels] = 3
    if not isinstance(shape[0], int):
        shape[0] = ir.SymbolicDim("batch")
    settled: dict[str, int | ir.SymbolicDim] = {}
    for old, new in zip(dims(image), shape, strict=True):
        name = old.value if isinstance(old, ir.SymbolicDim) else None
        if name is not None and settled.setdefault(name, new) != new:
            settled[name] = ir.SymbolicDim(None)  # a name of two sizes tells neither
    image.shape = ir.Shape(shape)
    others = (x for x in graph.inputs if x is not image)
    for value in [*others, *(y for node in graph for y in node.outputs)]:
        names = [str(n) for n in value.shape or ()]
        if not settled.keys().isdisjoint(names):
            value.shape = ir.Shape(map(settled.get, names, dims(value)))


def turn_channels(graph: ir.Graph, image: ir.Value) -> None:
    """Let the network read the image's three channels in the opposite order.

    Raises:
        SourceError: it has another number.
    """
    channels = image_axes(image)[2]
    if dims(image)[channels] != 3:
        raise SourceError(f"channels=bgr is of images with three channels, not of {image.shape}")
    parts = ir.node("Split", [image], {"axis": channels, "num_outputs": 3}, num_outputs=3)
    turned = ir.node("Concat", parts.outputs[::-1], {"axis": channels})
    y = turned.outputs[0]
    y.name, y.type, y.shape = f"{image.name}.turned", image.type, image.shape
    ir.convenience.replace_all_uses_with(image, y)
    graph.insert_before(graph[0], [parts, turned])
    parts.replace_input_with(0, image)


def looks_like_classifier(graph: ir.Graph) -> bool:
    """Whether some output may be the logits, as far as the shapes are known."""
    return len(graph.outputs) == 1 or any(map(_like_logits, graph.outputs))


def choose_outputs(graph: ir.Graph, name: str | None) -> list[ir.Value]:
    """Leave the outputs that are floats; of those, or of all values, the one named alone.

    Returns:
        The outputs of whole numbers that it had besides, where all are chosen.

    Raises:
        SourceError: there is none.
    """
    if name is not None:
        choose_value(graph, name)
    whole = [v for v in graph.outputs if is_whole(v)]
    floats = [v for v in graph.outputs if v.dtype is None or v.dtype.is_floating_point()]
    if not floats:
        listing = ", ".join(f"{v.name} {v.dtype}{v.shape}" for v in graph.outputs)
        raise SourceError(f"no output holds floats, which alone can be explained: {listing}")
    graph.outputs[:] = floats
    return whole


def is_whole(value: ir.Value) -> bool:
    """Whether it is of whole numbers, or of true and false."""
    return value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.BOOL)


def choose_logits(graph: ir.Graph, name: str | None) -> None:
    """Make the logits the graph's only output: the one named, or the only one that can be logits.

    That is a float value [N, classes] (or [N, classes, 1, 1]), before or after a final Softmax;
    class indices, feature maps and scalars beside it do not count, nor do coordinates: of several,
    it is the only one that a Softmax ends.
    """
    if name is not None:
        choose_value(graph, name)
    if len(graph.outputs) == 1:
        return
    candidates = [v for v in graph.outputs if _like_logits(v)] or list(graph.outputs)
    activations = {value: _final_activation(value) for value in candidates}
    if len(_before(activations)) != 1:
        softmax = {v: n for v, n in activations.items() if n is not None and n.op_type != "Sigmoid"}
        if len(_before(softmax)) != 1:
            outputs = _names(graph.outputs)
            raise SourceError(f"several outputs, choose the logits with output=: {outputs}")
        activations, candidates = dict(softmax), list(softmax)
    last = [value for value, node in activations.items() if node is not None]
    graph.outputs[:] = [*last, *candidates][:1]


def choose_value(graph: ir.Graph, name: str) -> None:
    """Make a value of the network, of whatever shape, its only output.

    Raises:
        SourceError: there is none of that name.
    """
    values = {v.name: v for node in graph for v in node.outputs}
    if name not in values:
        outputs = _names(graph.outputs)
        raise SourceError(f"no value {name!r} in the network; its outputs are: {outputs}")
    graph.outputs[:] = [values[name]]


def _names(values: Iterable[ir.Value]) -> str:
    return ", ".join(str(value.name) for value in values)


def _before(activations: Mapping[ir.Value, ir.Node | None]) -> set[ir.Value | None]:
    """The values without their final activations."""
    return {node.inputs[0] if node else value for value, node in activations.items()}


def _like_logits(value: ir.Value) -> bool:
    if value.shape is None or value.dtype is None or not value.dtype.is_floating_point():
        return False
    sizes = list(value.shape)
    return len(sizes) >= 2 and sizes[1] != 1 and all(size == 1 for size in sizes[2:])


def drop_other_inputs(graph: ir.Graph) -> ir.Value:
    """Leave the image as the only input; the logits must not depend on any other."""
    image, *others = graph.inputs
    needed = [str(value.name) for value in others if value.uses()]
    if needed:
        raise SourceError(
            f"the logits depend on {', '.join(needed)} besides {image.name!r}; with "
            f"wrt={image.name} all inputs stay inputs, or make them initializers "
            "(constants) of the graph first"
        )
    graph.inputs[:] = [image]
    return image


def cut_activation(graph: ir.Graph) -> tuple[ir.Value, str]:
    """The output without its final activation, the logits, and which activation that was.

    Without one, "", the output is the logits.
    """
    output = graph.outputs[0]
    node = _final_activation(output)
    if node is None or (x := node.inputs[0]) is None:
        return output, ""
    for user, index in list(node.outputs[0].uses()):  # what reshapes it reshapes its input
        user.replace_input_with(index, x)
    logits = x if output is node.outputs[0] else output
    return logits, "sigmoid" if node.op_type == "Sigmoid" else "softmax"


def _final_activation(output: ir.Value) -> ir.Node | None:
    """The Softmax over the classes, or the Sigmoid, at the output, seen through reshapes."""
    node = behind_reshapes(output.producer())
    if node is None or node.op_type == "Sigmoid":
        return node
    if node.op_type not in ("Softmax", "LogSoftmax"):
        return None
    y = node.outputs[0]
    wide = [i for i, size in enumerate(dims(y)) if size != 1 and i > 0]
    over_all_but_batch = wide == [attribute(node, "axis", -1) % len(dims(y))]
    return node if over_all_but_batch and (y is output or _classes(y) == _classes(output)) else None


def behind_reshapes(node: ir.Node | None) -> ir.Node | None:
    """The node in front of those that reshape what it gives, or leave it as it is."""
    while node is not None and node.op_type in _TRANSPARENT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


_TRANSPARENT = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")


def _classes(value: ir.Value) -> list[int | ir.SymbolicDim] | None:
    """The sizes other than 1 after the batch, or None where the rank is unknown."""
    return None if value.shape is None else [size for size in dims(value)[1:] if size != 1]


def is_row_of_classes(value: ir.Value) -> bool:
    """Whether it is [N, classes], or has besides axes of size 1 alone."""
    shape = [] if value.shape is None else dims(value)
    known = all(isinstance(size, int) for size in shape[1:])
    return len(shape) > 1 and known and sum(size != 1 for size in shape[1:]) <= 1


def is_number(value: ir.Value) -> bool:
    """Whether it is one number of each image, which no Sigmoid ends: no class's logit."""
    return all(size == 1 for size in dims(value)[1:]) and _final_activation(value) is None


def require_batch_first(model: ir.Model, logits: ir.Value) -> None:
    """
    Raises:
        SourceError: another axis of the logits than the first follows the batch of the image.
    """
    if batch_axes(model, [logits])[0] not in (0, None):
        raise SourceError(
            f"the first axis of the output {logits.name!r} {logits.shape} is not the batch, as it "
            "is in a classifier's logits; name its objective (objective='sequence'), or choose the "
            "logits with output="
        )


def flatten_logits(graph: ir.Graph, logits: ir.Value) -> ir.Value:
    """[N, classes, 1, 1] or [N, 1, 1, classes] → [N, classes]."""
    shape = dims(logits)
    if len(shape) > 2 and is_row_of_classes(logits):
        shape = [shape[0], *sorted(shape[1:], key=lambda size: size == 1)]
        logits = Builder(graph).op.Flatten(logits, axis=1)
        shape = shape[:2]
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise SourceError(
            f"the output {logits.name!r} has the shape {logits.shape}, not [N, classes]; choose "
            "the logits with output="
        )
    return logits


def rename(value: ir.Value, name: str) -> None:
    """Give a value its name in the contract, renaming another that has it already."""
    assert value.graph is not None
    if value.name != name:
        make_way(value.graph, [name])
        value.name = name


def make_way(graph: ir.Graph, names: Collection[str]) -> bool:
    """Free names for the explain graph: a value of the network that has one is `source.NAME`, but
    for the input that is the image.

    Returns:
        Whether one had.
    """
    computed = [value for node in graph for value in node.outputs]
    others = [x for x in graph.inputs if x.name != IMAGE]
    taken = [v for v in (*computed, *graph.initializers.values(), *others) if v.name in names]
    for value in taken:
        value.name = f"source.{value.name}"
    return bool(taken)
