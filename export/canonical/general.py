"""The canonical form of any graph, whatever its inputs and outputs are.

Three steps, between which the caller looks at the ends of the graph: `opened`, `spell`, `settle`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Container, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter

from onnxplain.errors import NoRuleError
from onnxplain.export.budget import check_functions, check_values
from onnxplain.export.canonical.bodies import in_bodies, infer_with_bodies, name_apart
from onnxplain.export.canonical.contrib import spell_contrib
from onnxplain.export.canonical.control_flow import unfold
from onnxplain.export.canonical.declared import merged, open_unknown, taken_off
from onnxplain.export.canonical.emit import called
from onnxplain.export.canonical.functions import write_out_functions
from onnxplain.export.canonical.half import is_stored_half, to_float32
from onnxplain.export.canonical.integers import spell_integers
from onnxplain.export.canonical.misread import spell_misread
from onnxplain.export.canonical.opsets import (
    declare_opset,
    raise_opset,
    spell_newer,
    spell_old_softmax,
)
from onnxplain.export.canonical.optimise import LARGEST, fold, optimise
from onnxplain.export.canonical.pools import drop_defaults, spell_padded_pools
from onnxplain.export.canonical.resized import scale_resizes
from onnxplain.export.canonical.sequences import write_out_sequences
from onnxplain.export.canonical.sizes import Sizes, settle_sizes, take_apart
from onnxplain.export.canonical.strided import spell_strided
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.subgraphs import bodies
from onnxplain.export.tensors import attribute, number_of


def opened(model: ir.Model) -> tuple[ir.Model, bool]:
    """The model at opset 20 or newer, its functions written out, its shapes inferred, in float32
    what was in half precision; and whether there was any. The model given is consumed.

    Raises:
        SourceError: an opset that cannot be raised, or more than the budget allows.
    """
    check_functions(model)
    write_out_functions(model)
    name_apart(model.graph)
    open_unknown(model.graph)
    model = raise_opset(model)
    common.RemoveInitializersFromInputsPass()(model)
    declared = taken_off(model.graph)
    # Before values are propagated too, of which ONNX keeps as many as a vector has elements.
    infer_shapes(model, data_prop=False)
    for y, shape in declared.items():
        y.shape = merged(y.shape, shape)
    check_values(model.graph)
    return model, to_float32(model)


def spell(model: ir.Model, aside: Container[ir.Node] = ()) -> None:
    """Standard operators alone, those of integers in floats, and what shape inference reads
    otherwise than runtimes, in place.

    Args:
        aside: nodes that no cotangent is to pass. What has no form in standard operators stays.

    Raises:
        NoRuleError: an operator of ONNX Runtime's own, or of integers, that has no such form.
    """
    for value in list(model.graph.initializers.values()):
        if value.name and value.name.startswith(("const_", "pullback.")):
            value.name = f"source.{value.name}"  # these names belong to the builder
    spell_integers(model, aside)
    spell_contrib(model, aside)
    spell_misread(model)
    infer_shapes(model)


def settle(
    model: ir.Model,
    inputs: Sequence[ir.Value],
    name_all: bool = False,
    sizes: Sizes = MappingProxyType({}),
) -> None:
    """Simplified and standardised, every size known that does not follow an open one of `inputs`.

    What is an output of the graph stays a value of its own.

    Args:
        name_all: whether sizes that inference gave a name are traced to those of the inputs too.
        sizes: numbers to try for the open ones, where not any will do.

    Raises:
        SourceError: an operator newer than opset 20, in a form that has no older spelling, or a
            value larger than the budget allows.
    """
    simplify(model)
    settle_sizes(model, inputs, simplify, name_all, sizes)
    standardise(model)
    check_values(model.graph)


def standardise(model: ir.Model) -> None:
    """Opset 20, constant control flow written out, one spelling of each operator, in bodies too.

    Raises:
        SourceError: an operator newer than opset 20, in a form that has no older spelling.
    """
    write_out(model)
    if any(bodies(node) for node in model.graph):
        infer_with_bodies(model, simplify)
        while spell_misread(model):  # which may tell more of what bodies are given
            infer_with_bodies(model, simplify)
    if spell_newer(model):  # a body may have control flow of its own
        simplify(model)
        write_out(model)
    declare_opset(model)
    refuse_training(model.graph)
    optimise(model, _should_fold)
    drop_identities(model.graph)
    spell_relu(model)
    infer_shapes(model)
    spell_strided(model)
    spell_einsum(model)
    spell_old_softmax(model.graph)
    scale_resizes(model.graph)
    spell_padded_pools(model.graph)
    drop_defaults(model.graph)
    infer_shapes(model)
    in_bodies(model, standardise)


def drop_identities(graph: ir.Graph) -> None:
    """Not those of bodies, whose results would be values from around them."""
    step = common.IdentityEliminationPass()
    for node in list(graph):
        step._try_eliminate_identity_node(node)


def refuse_training(graph: ir.Graph) -> None:
    """
    Raises:
        NoRuleError: a BatchNormalization is in training mode, which the optimiser would take for
            one in evaluation mode.
    """
    for node in graph.all_nodes():
        if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
            raise NoRuleError(
                f"BatchNormalization {called(node)} is in training mode; export the network in "
                "evaluation mode"
            )


def write_out(model: ir.Model) -> None:
    """Constant control flow, and sequences of tensors, which each may hold the other."""
    unfold(model, simplify)
    while write_out_sequences(model.graph):
        simplify(model)
        unfold(model, simplify)


def simplify(model: ir.Model) -> None:
    """Fold constants, drop dead nodes, infer shapes."""
    spell_misread(model)
    fold(model, _should_fold)
    if take_apart(model.graph):
        simplify(model)
        return
    common.RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def _should_fold(node: ir.Node) -> bool | None:
    """Weights stored in few bits, or as one number, stay so; others as the optimiser decides.

    What it would compute and then not keep is not computed: several results, one too large, or no
    tensor.
    """
    many = len(node.outputs) > 1 or node.op_type == "SequenceEmpty"
    if is_stored_half(node) or many or not _can_be_kept(node):
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

    def is_zero(_: Any, x: ir.Value, zero: ir.Value, **__: ir.Value) -> bool:
        whole = x.dtype is not None and not x.dtype.is_floating_point()  # runtimes have no Relu
        axes = 0 if zero.shape is None else len(zero.shape)
        widens = axes > (0 if x.shape is None else len(x.shape))
        return number_of(zero) == 0 and not whole and not widens

    def is_open(context: Any, x: ir.Value, zero: ir.Value, top: ir.Value, **_: ir.Value) -> bool:
        return is_zero(context, x, zero) and (number_of(top) or 0) >= _HIGHEST

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
