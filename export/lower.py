"""Lowering: of several forms of a backward operator, the one that runs fastest, and right.

All are exact.

A table operator → form (`FORMS`), applied to the backward nodes only. A form emits its nodes and
returns the new output, or `None` where the node stays (a form may change what it reads). What only
`FOR_GPUS` has a form of would run anyhow, but on the processor: it is applied to every node.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import sort
from onnxplain.export.autodiff import Node, dependents
from onnxplain.export.provenance import named_after, prefix_of
from onnxplain.export.tensors import array_of, attribute, constant, dims, rank, reshape, static
from onnxplain.export.windows import window_of, window_of_blocks
from onnxplain.kernels.windows import END, padded
from onnxplain.sub_pixel import phase

Active: TypeAlias = AbstractSet[ir.Value | None]
"""The values that depend on an input of the graph."""

MOST_ZEROS = 1.4
"""Times a kernel's elements that its sub-pixel form may have, with the zeros between."""


FEW = 4
"""Terms that are added one by one. All those of DenseNet-121's sums would be 430 nodes more."""


def lower(op: OpBuilder, nodes: Sequence[Node]) -> None:
    """Replace each of `nodes` that has a better form. Leaves the graph to be sorted again."""
    graph = op.builder.graph
    active = dependents(graph, graph.inputs)
    for node in nodes:
        form = FORMS.get(node.op_type)
        if form is None:
            continue
        with named_after(op, prefix_of(node.name)):
            better = form(op, node, active)
        if better is not None:
            if node.outputs[0] in active:
                active.add(better)
            ir.convenience.replace_all_uses_with(node.outputs[0], better)


def stay_on_gpu(op: OpBuilder) -> None:
    """Replace each node that a GPU has no kernel for by its form.

    That is, ONNX Runtime's CUDA provider (1.31) or its WebGPU provider in browsers (1.30).
    """
    graph = op.builder.graph
    for node in list(graph):
        form = None if node.domain else FOR_GPUS.get(node.op_type)
        if form is None:
            continue
        with named_after(op, prefix_of(node.name)):
            better = form(op, node)
        if better is not None:
            value = node.outputs[0]
            better.name, better.type, better.shape = value.name, value.type, value.shape
            value.name = None
            ir.convenience.replace_all_uses_with(value, better, replace_graph_outputs=True)
            graph.remove(node, safe=True)  # else it would still be a use of what it reads
    sort(graph)


def as_convolution(op: OpBuilder, node: Node) -> ir.Value | None:
    """A transposed convolution of stride 1 is a convolution with the kernel flipped and transposed.

    Runtimes have their fast kernels (blocked layouts, fused neighbours) for Conv, not for
    ConvTranspose. The flip is made of nodes on the shared weight, which the runtime folds when it
    loads, so the file holds the weight once.
    """
    g, w = node.inputs[:2]
    kernel = static(w, 2)
    axes = len(kernel)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    extra = node.attributes.get_ints("output_padding", [0] * axes)
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    before = [r - p for r, p in zip(reach, pads[:axes], strict=True)]
    after = [r - p + e for r, p, e in zip(reach, pads[axes:], extra, strict=True)]
    strides = node.attributes.get_ints("strides", [1] * axes)
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


def as_sub_pixel(op: OpBuilder, node: Node) -> ir.Value | None:
    """A transposed convolution of stride s is a convolution onto s² · C channels, rearranged.

    One convolution of all s · s phases (`onnxplain.sub_pixel`): the kernel gets δ zeros in front,
    so that o + p + δ = s q + a, and as many behind as make up a multiple of s. δ = -p mod s begins
    with the first output, δ = 0 may need fewer zeros and cuts off p mod s.
    """
    g, w = node.inputs[:2]
    kernel, strides = static(w, 2), node.attributes.get_ints("strides", [1])
    s = strides[0]
    others = [*node.attributes.get_ints("dilations", [1]), attribute(node, "group", 1)]
    if len(kernel) != 2 or any(n != s for n in strides) or any(n != 1 for n in others):
        return None
    pads = node.attributes.get_ints("pads", [0] * 4)
    shift = [
        min((0, -p % s), key=lambda d: (-(-(k + d) // s), (p + d) % s))
        for k, p in zip(kernel, pads, strict=False)
    ]
    taps = [-(-(k + d) // s) for k, d in zip(kernel, shift, strict=True)]
    if math.prod(taps) * s * s > MOST_ZEROS * math.prod(kernel):
        return None
    first, cut = zip(*(divmod(p + d, s) for p, d in zip(pads, shift, strict=False)), strict=True)
    ends = [c + n for c, n in zip(cut, _more_than_strides(node, kernel), strict=True)]
    count = [-(-end // s) for end in ends]
    along = zip(first, kernel, shift, count, strict=True)
    _, before, after = zip(*(phase(0, f, s, k + d, 0, q) for f, k, d, q in along), strict=True)
    if min(before + after) < 0:
        return None
    inner, outer = static(w, 0, 2)
    behind = [t * s - k - d for t, k, d in zip(taps, kernel, shift, strict=True)]
    if any(shift + behind):
        w = padded(op, w, [*shift, *behind])
    phases = reshape(op, w, [inner, outer, taps[0], s, taps[1], s])
    kernels = op.Transpose(phases, perm=[1, 3, 5, 0, 2, 4])
    if max(taps) > 1:
        kernels = reversed_along(op, kernels, [-2, -1])
    kernels = reshape(op, kernels, [outer * s * s, inner, *taps])
    y = op.Conv(g, kernels, kernel_shape=taps, pads=[*before, *after])
    y = op.DepthToSpace(y, blocksize=s, mode="CRD")
    unused = [end - q * s for end, q in zip(ends, count, strict=True)]
    if any([*cut, *unused]):
        y = op.Slice(y, list(cut), [n or END for n in unused], [-2, -1])
    return y


def _more_than_strides(node: Node, kernel: Sequence[int]) -> list[int]:
    """By how much a transposed convolution's output is longer than its input, stride for stride."""
    axes = len(kernel)
    strides, dilations = (
        node.attributes.get_ints(name, [1] * axes) for name in ("strides", "dilations")
    )
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    extra = node.attributes.get_ints("output_padding", [0] * axes)
    along = zip(kernel, strides, dilations, pads[:axes], pads[axes:], extra, strict=True)
    return [(k - 1) * d + 1 - s + more - b - a for k, s, d, b, a, more in along]


def as_dilated_convolution(op: OpBuilder, node: Node) -> ir.Value | None:
    """A transposed convolution of stride s and dilation m s hits every s-th output alone.

    Those are what one of stride 1 and dilation m computes; zeros go between them. TensorRT-RTX has
    no transposed convolution with both a stride and a dilation.
    """
    g, w = node.inputs[:2]
    kernel, strides = static(w, 2), node.attributes.get_ints("strides", [1])
    dilations = node.attributes.get_ints("dilations", [1])
    s, apart = strides[0], dilations[0] // strides[0]
    same = {*strides} == {s} and {*dilations} == {apart * s}
    if len(kernel) != 2 or s == 1 or not same:
        return None
    group = attribute(node, "group", 1)
    pads = node.attributes.get_ints("pads", [0] * 4)[:2]
    reach = [apart * (k - 1) for k in kernel]
    ends = [p + n for p, n in zip(pads, _more_than_strides(node, kernel), strict=True)]
    unused = [end - s * r for end, r in zip(ends, reach, strict=True)]
    if max(unused) > 0:
        return None
    hit = op.Conv(
        g,
        flipped(op, w, group),
        kernel_shape=kernel,
        dilations=[apart] * 2,
        group=group,
        pads=[*reach, *reach],
    )
    zeros = op.Mul(hit, 0.0)
    between = op.Concat(hit, *[zeros] * (s * s - 1), axis=-3)
    y = op.DepthToSpace(between, blocksize=s)
    return op.Slice(y, list(pads), [n or END for n in unused], [-2, -1])


def with_symmetric_pads(op: OpBuilder, node: Node) -> ir.Value | None:
    """The same pads at both ends; output_padding or a Slice makes up for the difference.

    ONNX Runtime's CUDA provider (1.31) leaves a transposed convolution with asymmetric pads to the
    processor. A smaller pad at the end is a larger one and as much output_padding, which is below
    the stride wherever a convolution's backward needs it; else the result is cut.
    """
    strides = node.attributes.get_ints("strides", [1] * (rank(node.inputs[1]) - 2))
    axes = len(strides)
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    by_size = attributes.pop("output_shape", None) is not None
    if attributes.pop("auto_pad", "NOTSET") != "NOTSET" or by_size:
        window = window_of(node, node.outputs[0], node.inputs[0], static(node.inputs[1], 2))
        begin, end = list(window.before), [max(a, 0) for a in window.after]
        extra = [max(-a, 0) for a in window.after]
    else:
        pads = node.attributes.get_ints("pads", [0] * 2 * axes)
        begin, end = pads[:axes], pads[axes:]
        if begin == end:
            return None
        extra = node.attributes.get_ints("output_padding", [0] * axes)
    kept, more, cut = [], [], []
    for b, e, x, stride in zip(begin, end, extra, strides, strict=True):
        padded = b >= e and x + b - e < stride
        kept.append(b if padded else min(b, e))
        more.append(x + b - e if padded else x)
        cut.append((0, 0) if padded else (b - kept[-1], e - kept[-1]))
    attributes |= {"pads": [*kept, *kept], "output_padding": more}
    y = op.ConvTranspose(*node.inputs, **attributes)
    if not any(map(any, cut)):
        return y
    starts, ends = zip(*((first, -last or END) for first, last in cut), strict=True)
    return op.Slice(y, list(starts), list(ends), list(range(-axes, 0)))


def flipped(op: OpBuilder, w: ir.Value, group: int) -> ir.Value:
    """[g·M, C, *k] → [g·C, M, *k] with every spatial axis reversed."""
    outer, inner, *kernel = static(w)
    if max(kernel) > 1:
        w = reversed_along(op, w, list(range(-len(kernel), 0)))
    if outer == group and inner == 1:
        return w
    behind = list(range(2, 2 + len(kernel)))
    if group == 1:
        return op.Transpose(w, perm=[1, 0, *behind])
    split = reshape(op, w, [group, outer // group, inner, *kernel])
    turned = op.Transpose(split, perm=[0, 2, 1, *(axis + 1 for axis in behind)])
    return reshape(op, turned, [group * inner, outer // group, *kernel])


def reversed_along(op: OpBuilder, w: ir.Value, axes: Sequence[int]) -> ir.Value:
    n = len(axes)
    first = int(np.iinfo(np.int64).min)
    return op.Slice(w, [-1] * n, [first] * n, list(axes), [-1] * n)


def with_its_own_weight(op: OpBuilder, node: Node, active: Active) -> None:
    """A square constant weight is read reversed twice: the same numbers, another tensor.

    Forward and backward use one weight, one of them transposed. OpenVINO's CPU plugin (2026.4, in
    float32) remembers a packed weight by its address and shape, whether it is to be transposed or
    not; where W and Wᵀ have one shape, the backward was silently given W for Wᵀ: a Gemm's of
    n × n, a ConvTranspose's of C to C channels. A runtime folds the two reversals when it loads,
    into a tensor with an address of its own.
    """
    w = node.inputs[1]
    if w in active or not all(isinstance(n, int) for n in dims(w)):
        return
    if node.op_type in ("Conv", "ConvTranspose"):
        outer, inner = static(w, 0, 2)
        outer //= attribute(node, "group", 1)
    elif rank(w) > 1:
        outer, inner = static(w, -2)
    else:
        return
    if outer == inner > 1:
        for _ in range(2):
            w = reversed_along(op, w, [0])
        node.replace_input_with(1, w)


def without_transposing(op: OpBuilder, node: Node, active: Active) -> ir.Value | None:
    """A transposed convolution's better form, if it has one."""
    auto = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if auto or "output_shape" in node.attributes or len(node.inputs) > 2:
        return None  # no rule emits these
    for form in (as_convolution, as_sub_pixel, as_dilated_convolution):
        if (better := form(op, node)) is not None:
            return better
    with_its_own_weight(op, node, active)
    return None


def as_additions(op: OpBuilder, node: Node) -> ir.Value | None:
    """A Sum of a few: WebGPU has no kernel for it. One of many is a single launch on CUDA."""
    few = 1 < len(node.inputs) <= FEW
    return functools.reduce(op.Add, node.inputs) if few else None


def as_mean_of_additions(op: OpBuilder, node: Node) -> ir.Value:
    return op.Div(functools.reduce(op.Add, node.inputs), float(len(node.inputs)))


def as_transposed_convolution(op: OpBuilder, node: Node) -> ir.Value | None:
    """Col2Im, by a ConvTranspose that puts each element of a window where it belongs.

    Its kernels [C·∏k, 1, *k] hold a single 1 each, the pads are cut off behind it.
    """
    x, block = node.inputs[0], array_of(node.inputs[2])
    if block is None:
        return None
    window = window_of_blocks(node, block.tolist())
    axes, taps = len(block), int(block.prod())
    (channels,) = static(x, 1, 2)
    ones = np.tile(np.eye(taps).reshape(taps, 1, *block), [channels // taps] + [1] * (axes + 1))
    y = op.ConvTranspose(
        op.Reshape(x, [-1, channels, *window.out]),
        constant(op, ones, x),
        group=channels // taps,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        output_padding=[max(-a, 0) for a in window.after],
    )
    if not any(window.before) and max(window.after) <= 0:
        return y
    ends = [-max(a, 0) or END for a in window.after]
    return op.Slice(y, list(window.before), ends, list(range(2, 2 + axes)))


FORMS: dict[str, Callable[[OpBuilder, Node, Active], ir.Value | None]] = {
    "Conv": with_its_own_weight,
    "ConvTranspose": without_transposing,
    "Gemm": with_its_own_weight,
    "MatMul": with_its_own_weight,
}

FOR_GPUS: dict[str, Callable[[OpBuilder, Node], ir.Value | None]] = {
    "Col2Im": as_transposed_convolution,
    "ConvTranspose": with_symmetric_pads,
    "Mean": as_mean_of_additions,
    "Sum": as_additions,
}
