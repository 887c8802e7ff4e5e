"""A ConvTranspose that pads by itself, with its pads written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxplain.export.tensors import dims


def spell_same_transposed(
    node: ir.Node, sizes_of: Callable[[ir.Value | None], Sequence[int] | None]
) -> bool:
    """`auto_pad` SAME with an `output_padding` as the pads that it means, in place.

    The result is the input's size times the strides, as the standard and ONNX Runtime have it;
    ONNX's shape inference (1.23) adds the output padding to it once more.

    Args:
        sizes_of: height and width of a value, or however many axes it has, if they are known.

    Returns:
        Whether another shape was inferred of its result.
    """
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    more = list(node.attributes.get_ints("output_padding", []))
    if not auto_pad.startswith("SAME") or not any(more) or "output_shape" in node.attributes:
        return False
    (x, weight), (y,) = node.inputs[:2], node.outputs
    sizes, kernel = sizes_of(x), sizes_of(weight)
    if sizes is None or kernel is None:
        return False
    strides = node.attributes.get_ints("strides", [1] * len(sizes))
    dilations = node.attributes.get_ints("dilations", [1] * len(sizes))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    total = [m + span - s for m, span, s in zip(more, spans, strides, strict=True)]
    padded = [max(t, 0) for t in total]
    before = [(t + (auto_pad == "SAME_LOWER")) // 2 for t in padded]
    after = [t - b for t, b in zip(padded, before, strict=True)]
    missing = [m + max(-t, 0) for m, t in zip(more, total, strict=True)]
    del node.attributes["auto_pad"]
    node.attributes.add(ir.AttrInt64s("pads", [*before, *after]))
    node.attributes.add(ir.AttrInt64s("output_padding", missing))
    out = [n * s for n, s in zip(sizes, strides, strict=True)]
    return y.shape is None or list(dims(y))[2:] != out
