"""Lowering: of several forms of a backward operator, the one that runs fastest, and right.

All are exact.

A table operator → form, applied to the backward nodes only. A form emits its nodes and returns the
new output, or `None` where the node stays (a form may change what it reads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import attribute, rank, reshape, static


def lower(op: OpBuilder, nodes: Sequence[Node]) -> None:
    """Replace each of `nodes` that has a better form. Leaves the graph to be sorted again."""
    for node in nodes:
        form = FORMS.get(node.op_type)
        better = form(op, node) if form is not None else None
        if better is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], better)


def as_convolution(op: OpBuilder, node: Node) -> ir.Value | None:
    """A transposed convolution of stride 1 is a convolution with the kernel flipped and transposed.

    Runtimes have their fast kernels (blocked layouts, fused neighbours) for Conv, not for
    ConvTranspose. The flip is made of nodes on the shared weight, which the runtime folds when it
    loads, so the file holds the weight once.
    """
    g, w = node.inputs[:2]
    assert g is not None
    assert w is not None
    kernel = static(w, 2)
    axes = len(kernel)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    extra = node.attributes.get_ints("output_padding", [0] * axes)
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    before = [r - p for r, p in zip(reach, pads[:axes], strict=True)]
    after = [r - p + e for r, p, e in zip(reach, pads[axes:], extra, strict=True)]
    strides = node.attributes.get_ints("strides", [1] * axes)
    auto = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if auto or "output_shape" in node.attributes or len(node.inputs) > 2:
        return None  # no rule emits these
    if any(s != 1 for s in strides) or min(before + after) < 0:
        return None
    group = attribute(node, "group", 1)
    return op.Conv(
        g,
        flipped(op, w, group),
        kernel_shape=kernel,
        dilations=list(dilations),
        group=group,
        pads=[*before, *after],
    )


def flipped(op: OpBuilder, w: ir.Value, group: int) -> ir.Value:
    """[g·M, C, *k] → [g·C, M, *k] with every spatial axis reversed."""
    outer, inner, *kernel = static(w)
    spatial = list(range(-len(kernel), 0))
    if max(kernel) > 1:
        first = int(np.iinfo(np.int64).min)
        n = len(kernel)
        w = op.Slice(w, [-1] * n, [first] * n, spatial, [-1] * n)
    if outer == group and inner == 1:
        return w
    behind = list(range(2, 2 + len(kernel)))
    if group == 1:
        return op.Transpose(w, perm=[1, 0, *behind])
    split = reshape(op, w, [group, outer // group, inner, *kernel])
    turned = op.Transpose(split, perm=[0, 2, 1, *(axis + 1 for axis in behind)])
    return reshape(op, turned, [group * inner, outer // group, *kernel])


def with_its_own_weight(op: OpBuilder, node: Node) -> None:
    """A square constant weight is read reversed twice: the same numbers, another tensor.

    Forward and backward use one weight, one of them transposed. OpenVINO's CPU plugin (2026.4, in
    float32) remembers a packed weight by its address and shape, whether it is to be transposed or
    not; where W and Wᵀ have one shape, the backward was silently given W for Wᵀ: a Gemm's of
    n × n, a ConvTranspose's of C to C channels. A runtime folds the two reversals when it loads,
    into a tensor with an address of its own.
    """
    w = node.inputs[1]
    if not _is_constant(w):
        return
    if node.op_type in ("Conv", "ConvTranspose"):
        outer, inner = static(w, 0, 2)
        outer //= attribute(node, "group", 1)
    elif rank(w) > 1:
        outer, inner = static(w, -2)
    else:
        return
    if outer == inner > 1:
        first = int(np.iinfo(np.int64).min)
        for _ in range(2):
            w = op.Slice(w, [-1], [first], [0], [-1])
        node.replace_input_with(1, w)


def convolution_or_own_weight(op: OpBuilder, node: Node) -> ir.Value | None:
    better = as_convolution(op, node)
    if better is None:
        with_its_own_weight(op, node)
    return better


def _is_constant(value: ir.Value | None) -> bool:
    """Whether it is computed from initializers alone."""
    waiting, seen = [value], set()
    while waiting:
        x = waiting.pop()
        if x is None or x.is_initializer() or x in seen:
            continue
        node = x.producer()
        if node is None:
            return False
        seen.add(x)
        waiting.extend(node.inputs)
    return True


FORMS: dict[str, Callable[[OpBuilder, Node], ir.Value | None]] = {
    "Conv": with_its_own_weight,
    "ConvTranspose": convolution_or_own_weight,
    "Gemm": with_its_own_weight,
    "MatMul": with_its_own_weight,
}
