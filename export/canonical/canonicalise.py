"""The canonical forward: one opset, one spelling, float32, static shapes but for the batch.

What the sweep can rely on afterwards: opset ≥ 20, no functions, no control flow whose course is
constant, no operator that opset 20 lacks, every weight and constant an initializer (or a Cast or
DequantizeLinear of one, which keeps it as small as it was), BatchNormalization folded into the
convolution before it, dead nodes gone, ranks and sizes known, one input named `image` and one
output named `logits` [N, classes].
"""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import common
from onnxscript import rewriter

from onnxplain.contract.explain import IMAGE, LOGITS
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.budget import check_functions, check_values
from onnxplain.export.canonical.batch import free_batch
from onnxplain.export.canonical.contrib import spell_contrib
from onnxplain.export.canonical.control_flow import refuse_control_flow, unfold
from onnxplain.export.canonical.ends import (
    choose_image,
    choose_logits,
    cut_activation,
    drop_other_inputs,
    fix_sizes,
    flatten_logits,
    rename,
)
from onnxplain.export.canonical.half import is_stored_half, to_float32
from onnxplain.export.canonical.opsets import declare_opset, raise_opset, spell_newer
from onnxplain.export.canonical.optimise import LARGEST, optimise
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.canonical.quantisers import refuse_integer_arithmetic, show_relus
from onnxplain.export.canonical.sizes import settle_sizes
from onnxplain.export.canonical.strided import spell_strided
from onnxplain.export.canonical.transposed import spell_same_transposed
from onnxplain.export.tensors import array_of, attribute, number_of, rank, static


@dataclass(frozen=True)
class Canonical:
    """A canonical forward and what was learned of it.

    `activation`, "softmax" or "sigmoid", came after the logits: it makes them
    probabilities. `patterns` counts what `onnxplain.export.canonical.patterns` recognised, by name.
    `fixed_batch` says why the batch is fixed, where it could not be freed. `logits` is the name
    that the logits had in the source.
    """

    model: ir.Model
    activation: str
    patterns: Mapping[str, int]
    fixed_batch: str | None
    logits: str


def canonicalise(
    model: ir.Model,
    size: tuple[int, int] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    keep: Collection[str] = (),
    fold_norms: bool = True,
) -> Canonical:
    """Bring a classifier's forward graph into the canonical form; the model given is consumed.

    A batch that the network fixes becomes dynamic where that is provably safe; elsewhere it stays.

    Args:
        size: height and width, for an input that leaves them open.
        input_name: the image input, where there are several.
        output_name: the logits, where there are several outputs; any float value [N, classes].
        keep: the names of values that no simplification may remove.
        fold_norms: whether a BatchNorm goes into the convolution before it.

    Raises:
        SourceError: no single image-like input, no logits, or an opset or sizes that cannot be had;
            the message says what was found and what to pass.
        NoRuleError: control flow that depends on the image, integer arithmetic, an operator of
            ONNX Runtime's own.
    """
    check_functions(model)
    common.InlinePass()(model)
    model = raise_opset(model)
    graph = model.graph
    common.RemoveInitializersFromInputsPass()(model)
    # Before values are propagated too, of which ONNX keeps as many as a vector has elements.
    common.ShapeInferencePass(data_prop=False)(model)
    check_values(graph)
    was_half = to_float32(model)
    image = choose_image(graph, input_name)
    fix_sizes(image, size)
    for value in list(graph.initializers.values()):
        if value.name and value.name.startswith(("const_", "pullback.")):
            value.name = f"source.{value.name}"  # these names belong to the builder
    refuse_integer_arithmetic(model)
    spell_contrib(model)
    spell_ceil_mode(model)
    spell_same_transposed(model)
    common.ShapeInferencePass()(model)
    choose_logits(graph, output_name)
    graph.outputs.extend(y for node in list(graph) for y in node.outputs if y.name in keep)
    if not fold_norms:  # what is put out is kept as it is
        norms = [node.inputs[0] for node in graph if node.op_type == "BatchNormalization"]
        graph.outputs.extend(x for x in norms if x is not None and x not in graph.outputs)
    simplify(model)
    settle_sizes(model, image, simplify)
    standardise(model)
    check_values(graph)
    image = drop_other_inputs(graph)
    refuse_control_flow(graph, image)
    show_relus(graph, image)
    fixed_batch = free_batch(model)
    logits, activation = cut_activation(graph)
    logits = flatten_logits(graph, logits)
    if logits not in dependents(graph, [image]):
        raise SourceError(f"the output {graph.outputs[0].name!r} does not depend on the image")
    graph.outputs[:] = [logits]
    common.RemoveUnusedNodesPass()(model)
    rename(image, IMAGE)
    named = str(logits.name)
    rename(logits, LOGITS)
    return Canonical(model, activation, recognise(model, was_half), fixed_batch, named)


def standardise(model: ir.Model) -> None:
    """Opset 20, constant control flow written out, one spelling of each operator.

    Raises:
        SourceError: an operator newer than opset 20, in a form that has no older spelling.
    """
    unfold(model, simplify)
    if spell_newer(model):  # a body may have control flow of its own
        simplify(model)
        unfold(model, simplify)
    declare_opset(model)
    optimise(model, _should_fold)
    common.IdentityEliminationPass()(model)
    spell_relu(model)
    common.ShapeInferencePass()(model)
    spell_strided(model)
    spell_einsum(model)
    spell_padded_pools(model.graph)
    drop_defaults(model.graph)
    common.ShapeInferencePass()(model)


def simplify(model: ir.Model) -> None:
    """Fold constants, drop dead nodes, infer shapes."""
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=_should_fold)
    common.RemoveUnusedNodesPass()(model)
    common.ShapeInferencePass()(model)


def _should_fold(node: ir.Node) -> bool | None:
    """Weights stored in few bits, or as one number, stay so; others as the optimiser decides.

    What it would compute and then not keep is not computed: several results, or one too large.
    """
    if is_stored_half(node) or len(node.outputs) > 1 or not _can_be_kept(node):
        return False
    if node.op_type == "ConstantOfShape" and node.inputs[0] is not None:
        shape = ir.convenience.get_const_tensor(node.inputs[0])
        small = shape is not None and int(np.prod(shape.numpy())) <= _SMALL
        return True if small else None
    return None


def _can_be_kept(node: ir.Node) -> bool:
    """Whether the results are as small as the optimiser keeps beside the operands they replace."""
    operands = (x.const_value for x in node.inputs if x is not None)
    most = LARGEST + sum(tensor.size for tensor in operands if tensor is not None)
    sizes = (list(y.shape or ()) for y in node.outputs)
    known = (math.prod(n for n in shape if isinstance(n, int)) for shape in sizes)
    return all(size <= most for size in known)


_SMALL = 64  # elements in a shape, which exporters build from ones


def spell_relu(model: ir.Model) -> None:
    """`Max(x, 0)`, `Clip(x, 0)` and `Clip(x, 0, ∞)`, as clamps are exported, become `Relu(x)`."""

    def clip(op: Any, x: ir.Value, zero: ir.Value) -> Any:
        return op.Clip(x, zero)

    def up_to(op: Any, x: ir.Value, zero: ir.Value, top: ir.Value) -> Any:
        return op.Clip(x, zero, top)

    def maximum(op: Any, x: ir.Value, zero: ir.Value) -> Any:
        return op.Max(x, zero)

    def relu(op: Any, x: ir.Value, **_: ir.Value) -> Any:
        return op.Relu(x)

    def is_zero(_: Any, zero: ir.Value, **__: ir.Value) -> bool:
        return number_of(zero) == 0

    def is_open(context: Any, zero: ir.Value, top: ir.Value, **_: ir.Value) -> bool:
        return is_zero(context, zero) and (number_of(top) or 0) >= _HIGHEST

    rules = [
        rewriter.pattern.RewriteRule(spelling, relu, condition)
        for spelling, condition in ((clip, is_zero), (up_to, is_open), (maximum, is_zero))
    ]
    rewriter.rewrite(model, rewriter.pattern.RewriteRuleSet(rules, commute=True))


_HIGHEST = 3e38  # of float32


def spell_einsum(model: ir.Model) -> None:
    """An Einsum's letters become a, b, c …: TensorRT takes lower-case ones alone."""
    for node in model.graph:
        if node.op_type == "Einsum":
            equation = node.attributes.get_string("equation", "")
            letters = sorted(set(filter(str.isalpha, equation)))  # the order of an implicit result
            table = str.maketrans(dict(zip(letters, string.ascii_lowercase, strict=False)))
            node.attributes.add(ir.AttrString("equation", equation.translate(table)))


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


def spell_ceil_mode(model: ir.Model) -> None:
    """A pool's `ceil_mode` as padding at the end, where that means the same.

    So nobody can disagree on how many windows there are: those that start before the padding at the
    end, as in PyTorch and in every runtime. Shape inference at opset 20 also counts one that starts
    in it; where it did, all that it found from there on is inferred again.
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
