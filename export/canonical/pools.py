"""Pools in one spelling: the padding in them, `ceil_mode` as padding, no defaults written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.emit import Emitter, integers
from onnxplain.export.tensors import array_of, attribute, number_of, rank


def spell_padded_pools(graph: ir.Graph) -> None:
    """A Pad with -∞ (or float's lowest) before a MaxPool becomes the pool's own padding.

    It means the same. A method must not see infinities, and must explain all spellings of a padded
    pool alike.
    """
    for node in graph:
        pad = node.inputs[0].producer() if node.op_type == "MaxPool" and node.inputs[0] else None
        if pad is None or pad.op_type != "Pad" or attribute(node, "ceil_mode", 0):
            continue
        if any(y.uses() or y.is_graph_output() for y in node.outputs[1:]):
            continue  # indices count the padding too
        x, amounts, value, axes = [*pad.inputs, None, None][:4]
        put, padding, chosen = number_of(value), array_of(amounts), array_of(axes)
        lowest = put is not None and put <= _LOWEST
        if x is None or padding is None or not lowest or (axes is not None and chosen is None):
            continue
        n = rank(x)
        at = range(n) if chosen is None else [int(a) % n for a in chosen]
        around = np.zeros([2, n], np.int64)
        around[:, list(at)] = padding.reshape(2, -1)
        kernel = node.attributes.get_ints("kernel_shape")
        pads = np.array(node.attributes.get_ints("pads", [0] * 2 * len(kernel))).reshape(2, -1)
        pads = pads + around[:, 2:]
        automatic = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        constant = pad.attributes.get_string("mode", "constant") == "constant"
        fits = (pads >= 0).all() and (pads < np.array(kernel)).all() and not around[:, :2].any()
        if constant and fits and not automatic:
            node.attributes.pop("auto_pad", None)
            node.attributes.add(ir.AttrInt64s("pads", pads.ravel().tolist()))
            node.replace_input_with(0, x)


_LOWEST = -1e30


def drop_defaults(graph: ir.Graph) -> None:
    """A MaxPool says only what does not go without saying: one that is computed again is found."""
    for node in graph:
        if node.op_type == "MaxPool":
            for name, attr in list(node.attributes.items()):
                if name in _DEFAULTS and {*np.ravel(attr.value)} == {_DEFAULTS[name]}:
                    del node.attributes[name]


_DEFAULTS = {
    **{"auto_pad": "NOTSET", "ceil_mode": 0, "storage_order": 0},
    **{"dilations": 1, "pads": 0, "strides": 1},
}


POOLS = ("AveragePool", "LpPool", "MaxPool")


def spell_ceil_mode(
    node: ir.Node, sizes_of: Callable[[ir.Value | None], Sequence[int] | None]
) -> bool:
    """A pool's `ceil_mode` as padding at the end, where that means the same.

    So nobody can disagree on how many windows there are: those that start before the padding at the
    end, as in PyTorch and in every runtime. Shape inference at opset 20 also counts one that starts
    in it.

    Args:
        sizes_of: height and width of a value, or however many axes it has, if they are known.

    Returns:
        Whether another shape was inferred of its result.
    """
    sizes = sizes_of(node.inputs[0]) if attribute(node, "ceil_mode", 0) else None
    if sizes is None:
        return False
    y = node.outputs[0]
    kernel = node.attributes.get_ints("kernel_shape")
    ones: list[int] = [1] * len(kernel)
    strides = node.attributes.get_ints("strides", ones)
    dilations = node.attributes.get_ints("dilations", ones)
    pads = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    counts = node.op_type == "AveragePool" and attribute(node, "count_include_pad", 0)
    out, ends = [], []
    for i, n in enumerate(sizes):
        span, stride = (kernel[i] - 1) * dilations[i] + 1, strides[i]
        reached = n + before[i]
        windows = -(-(reached + after[i] - span) // stride) + 1
        windows -= (windows - 1) * stride >= reached
        out.append(windows)
        reached += after[i] if counts else 0
        ends.append(max((windows - 1) * stride + span - reached, 0))
    as_inferred = y.shape is not None and list(y.shape)[2:] == out
    if any(end >= k for end, k in zip(ends, kernel, strict=True)) or (counts and as_inferred):
        return False  # more padding than runtimes accept; or what is read alike everywhere
    if counts:
        _pad_before(node, before, after)
        before = [0] * len(kernel)
    node.attributes.add(ir.AttrInt64s("pads", [*before, *ends]))
    node.attributes.add(ir.AttrInt64("ceil_mode", 0))
    return not as_inferred


def _pad_before(node: ir.Node, before: Sequence[int], after: Sequence[int]) -> None:
    """Its padding, which counts, apart from a pool: what is padded for `ceil_mode` does not."""
    emit = Emitter()
    padded = emit("Pad", node.inputs[0], integers(0, 0, *before, 0, 0, *after))
    assert node.graph is not None
    node.graph.insert_before(node, emit.nodes)
    node.replace_input_with(0, padded)
    node.attributes.add(ir.AttrInt64("count_include_pad", 0))
