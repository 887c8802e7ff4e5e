"""Maps of classes: segmentation, saliency, mattes, fully convolutional classifiers.

The mean logit of a class over a region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.objective import EXPLAINED_CLASS, INDEX, MASK
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.ends import image_size
from onnxplain.export.heads import chosen_class
from onnxplain.export.objectives.objective import (
    NO_IMAGE,
    Emitted,
    Fit,
    Input,
    Network,
    Objective,
    Output,
    Setting,
    Settings,
    hold,
    register_objective,
)
from onnxplain.export.objectives.reading import Ending, ending, mean_over, one_hot_row
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import integers
from onnxplain.export.values import varies

_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "NCHW": ("class", "height", "width"),
    "NHWC": ("height", "width", "class"),
    "NHW": ("height", "width"),
}
"""A layout → its axes behind the batch."""


def fits(network: Network, settings: Settings) -> Fit | str:
    if not network.has_image:
        return NO_IMAGE
    height, width, _ = image_size(network.image)
    unclear = None
    for output in network.outputs:
        found = [settings["layout"]] if "layout" in settings else _layouts(output, height, width)
        found = [layout for layout in found if len(_LAYOUTS[layout]) == len(output.sizes)]
        if len(found) > 1:
            unclear = output
        if len(found) == 1:
            return _fit(output, found[0], network)
    if unclear is not None:
        sizes = ", ".join(map(str, unclear.sizes))
        why = f"{unclear.name} [N, {sizes}] has the image's proportions read in either way"
        return replace(_fit(unclear, "NCHW", network), sure=False, why=why, unshown=["layout"])
    return f"no output is [N, C, h, w], [N, h, w, C] or [N, {height}, {width}]"


def _layouts(output: Output, height: int, width: int) -> list[str]:
    """Those in which the output is a map of the image's proportions, of more than one place."""
    if len(output.sizes) == 2:
        return ["NHW"] if output.sizes == [height, width] else []
    return [
        layout
        for layout, axes in _LAYOUTS.items()
        if len(axes) == len(output.sizes) and _like(_places(output, layout), (height, width))
    ]


def _places(output: Output, layout: str) -> Sequence[int]:
    at = _LAYOUTS[layout].index("height")
    return output.sizes[at : at + 2]


def _like(places: Sequence[int], image: Sequence[int]) -> bool:
    """Whether both sides are an image's, divided by the same stride and rounded."""
    if math.prod(places) == 1:
        return False
    stride = max(side / n for side, n in zip(image, places, strict=True))
    least = min(side / n for side, n in zip(image, places, strict=True))
    return any(
        all(abs(side / s - n) < 1 for side, n in zip(image, places, strict=True))
        for s in (stride, least)
    )


def _fit(output: Output, layout: str, network: Network) -> Fit:
    axes = list(_LAYOUTS[layout])
    height, width = _places(output, layout)
    classes = output.sizes[axes.index("class")] if "class" in axes else 1
    axes.insert(output.batch, "batch")
    of = f"of {classes} classes " if classes > 1 else ""
    activation = _ending(output, axes).activation
    why = f"{output.name} is a map {of}on {height} × {width} places"
    heads = _raw_heads(output, layout, network)
    if heads:
        why += (
            f"; {' and '.join(heads)} have as many channels on other grids, as a detector's raw "
            "heads do: for objective detection export it with its boxes decoded"
        )
    return Fit(
        {"map": output},
        {output.name: axes},
        why,
        sure=not heads and (bool(activation) or (classes > 1 and _is_layer(output.value))),
        classes=classes,
        ranks=classes,
        shapes={"region": (height, width)},
        settings={"layout": layout},
        activation=activation,
    )


def _is_layer(value: ir.Value | None, sums: int = 1) -> bool:
    """Whether layers with weights alone put it out, or a sum of two: no features, which end in an
    activation, a norm or a residual."""
    node = None if value is None else value.producer()
    if node is None:
        return value is not None and not varies(value)
    kind = row_of(operator_name(node)).kind
    if kind in (Kind.MOVE, Kind.INTERPOLATION):
        return all(_is_layer(x, sums) for x in node.inputs if x is not None and varies(x))
    if node.op_type == "Add" and sums:
        return all(_is_layer(x, sums - 1) for x in node.inputs)
    return kind in (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT)


def _raw_heads(output: Output, layout: str, network: Network) -> list[str]:
    """Other outputs of as many classes on other grids, where none is as large as the image."""
    if "class" not in _LAYOUTS[layout]:
        return []
    at = _LAYOUTS[layout].index("class")
    alike = [
        one for one in network.outputs if len(one.sizes) == 3 and one.sizes[at] == output.sizes[at]
    ]
    if any(list(_places(one, layout)) == list(image_size(network.image)[:2]) for one in alike):
        return []
    return [one.name for one in alike if _places(one, layout) != _places(output, layout)]


def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> Emitted:
    """Σ_p m_p y_cp / Σ_p m_p over the places p of the region m, the logits y before a final Softmax
    or Sigmoid.

    Without a region, it is where the class is predicted: where its logit is the greatest, or, of a
    single class or one that a Sigmoid ends, above 0; where it is nowhere, all places. -1 is the
    class that is predicted at most places of the region, or of the image.
    """
    y = _maps(op, fit)  # [N, C, places]
    region = _region(op, fit, inputs["region"])
    given = op.Greater(op.ReduceMax(region, [1], keepdims=1), 0.0)
    if fit.classes == 1 or fit.activation == "sigmoid":
        predicted = op.Greater(y, 0.0)
    else:
        classes = integers(op, np.arange(fit.classes)[:, None])
        predicted = op.Equal(op.ArgMax(y, axis=1, keepdims=1), classes)
    predicted = hold(op, op.CastLike(predicted, y))
    looked_at = op.Unsqueeze(op.Where(given, region, 1.0), [2])
    area = op.Squeeze(op.MatMul(predicted, looked_at), [2])
    chosen = chosen_class(op, area, inputs["target"])
    hot = op.Unsqueeze(one_hot_row(op, chosen, fit.classes, y), [1])
    logit, own = (op.Squeeze(op.MatMul(hot, maps), [1]) for maps in (y, predicted))
    return mean_over(op, logit, op.Where(given, region, own)), {EXPLAINED_CLASS: chosen}


def _region(op: OpBuilder, fit: Fit, region: ir.Value) -> ir.Value:
    """The region at each place of the map: [N, places]. That of a map of open size is a grid over
    the image, and resized to it bilinearly."""
    output = fit.outputs["map"]
    if not output.is_open:
        return op.Reshape(region, [-1, math.prod(fit.shapes["region"])])
    axis = fit.axes[output.name].index("height")
    sides = op.Shape(output.value, start=axis, end=axis + 2)
    sizes = op.Concat(op.Shape(region, start=0, end=1), [1], sides, axis=0)
    resized = op.Resize(op.Unsqueeze(region, [1]), None, None, sizes, mode="linear")
    flat = op.Reshape(resized, [0, -1])
    flat.shape = ir.Shape([region.shape[0] if region.shape else None, None])
    return flat


def _maps(op: OpBuilder, fit: Fit) -> ir.Value:
    output = fit.outputs["map"]
    y = output.with_batch_first(op, _ending(output, fit.axes[output.name]).logits(op))
    if fit.settings["layout"] == "NHWC":
        y = op.Transpose(y, perm=[0, 3, 1, 2])
    if output.is_open:
        return op.Reshape(y, [0, fit.classes, -1])
    return op.Reshape(y, [-1, fit.classes, math.prod(fit.shapes["region"])])


def _ending(output: Output, axes: Sequence[str]) -> Ending:
    return ending(output.value, list(axes).index("class") if "class" in axes else None)


register_objective(
    Objective(
        "segment",
        "a class's mean logit over a region of a map",
        fits,
        emit,
        (
            Input("target", "the class; -1 is the one predicted at most places", INDEX, -1),
            Input(
                "region",
                "where to look: positive inside, 0 outside; all 0 is where the class is predicted",
                MASK,
                0,
            ),
        ),
        (Setting("layout", "what the map's axes are", tuple(_LAYOUTS)),),
        whole=True,
    )
)
