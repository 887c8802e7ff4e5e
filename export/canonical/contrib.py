"""ONNX Runtime's own operators, found in files that it has optimised, spelled in standard ones."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import operator_name
from onnxplain.export.budget import TIMES
from onnxplain.export.canonical.emit import Emitted, Emitter, called, replace
from onnxplain.export.canonical.spelled.normalisations import rms_normalization
from onnxplain.export.operators import VJPS
from onnxplain.export.shapes import infer_node, infer_shapes
from onnxplain.export.tensors import attribute, rank

DOMAIN = "com.microsoft"


def spell_contrib(model: ir.Model, aside: Container[ir.Node] = ()) -> None:
    """Spell the operators of the domain `com.microsoft` in standard ones.

    Args:
        aside: nodes that no cotangent is to pass. What has no form stays there.

    Raises:
        NoRuleError: one that has neither such a form here nor a rule of its own.
    """
    opsets, replaced, times = model.graph.opset_imports, False, 0
    for node in list(model.graph.all_nodes()):
        if replaced and not node.domain and any(y.shape is None for y in node.outputs):
            infer_node(node, opsets)  # which stopped at the operators replaced by now
        if node.domain.startswith(DOMAIN) and operator_name(node) not in VJPS:
            form = CONTRIB.get(node.op_type) if node.domain == DOMAIN else None
            if form is None and node in aside:
                continue
            if form is None:
                name = operator_name(node)
                raise NoRuleError(
                    f"operator {name} {called(node)} is of ONNX Runtime's own domain, and has no "
                    "rule; if its optimiser or quantiser put it there, export the model from "
                    "before that (sess_options.optimized_model_filepath writes the optimised one), "
                    f'else give it one with: onnxplain.export.register_vjp("{name}")'
                )
            if node.op_type in _BY_RANK and any(
                x is not None and x.shape is None for x in node.inputs
            ):
                TIMES.check(times := times + 1)
                infer_shapes(model)
            for new in replace(node, form):
                infer_node(new, opsets)
            replaced = True


_BY_RANK = ("FusedMatMul", "SimplifiedLayerNormalization")


def _gelu(emit: Emitter, node: ir.Node) -> Emitted:
    x, bias = [*node.inputs, None][:2]
    exact = node.op_type != "FastGelu"
    x = x if bias is None else emit("Add", x, bias)
    return emit("Gelu", x, approximate="none" if exact else "tanh")


def _quick_gelu(emit: Emitter, node: ir.Node) -> Emitted:
    x = node.inputs[0]
    alpha = np.array(node.attributes.get_float("alpha", 1.702), np.float32)
    return emit("Mul", x, emit("Sigmoid", emit("Mul", x, alpha)))


def _layer_normalization(emit: Emitter, node: ir.Node) -> Emitted:
    axis = attribute(node, "axis", -1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return emit("LayerNormalization", *node.inputs, axis=axis, epsilon=epsilon)


def _skip_layer_normalization(emit: Emitter, node: ir.Node) -> Emitted:
    """LayerNormalization(x + skip + bias); the sum is its fourth output."""
    x, skip, gamma, beta, bias = [*node.inputs, None, None][:5]
    total = emit("Add", x, skip)
    total = total if bias is None else emit("Add", total, bias)
    epsilon = node.attributes.get_float("epsilon", 1e-12)
    y = emit("LayerNormalization", total, gamma, beta, axis=-1, epsilon=epsilon)
    return [y, None, None, total]


def _fused_matmul(emit: Emitter, node: ir.Node) -> Emitted:
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise NoRuleError(
            f"FusedMatMul {node.name!r} transposes its batches: export the model that ONNX Runtime "
            "has not optimised"
        )
    operands = []
    for x, name in zip(node.inputs[:2], ("transA", "transB"), strict=True):
        assert x is not None
        if attribute(node, name, 0):
            axes = list(range(rank(x)))
            axes[-2:] = axes[-1], axes[-2]
            x = emit("Transpose", x, perm=axes)
        operands.append(x)
    y, alpha = emit("MatMul", *operands), node.attributes.get_float("alpha", 1.0)
    return y if alpha == 1 else emit("Mul", y, np.array(alpha, np.float32))


def _fused(op_type: str) -> Callable[[Emitter, ir.Node], Emitted]:
    """A convolution or matrix product (plus a fourth input), then an activation."""

    def form(emit: Emitter, node: ir.Node) -> Emitted:
        own = {
            name: attr.value
            for name, attr in node.attributes.items()
            if not name.startswith("activation")
        }
        y = emit(op_type, *node.inputs[:3], **own)
        if len(node.inputs) > 3:
            y = emit("Add", y, node.inputs[3])
        name = node.attributes.get_string("activation", "")
        parameters = list(node.attributes.get_floats("activation_params", []))
        if name == "Clip":
            return emit("Clip", y, *(np.array(bound, np.float32) for bound in parameters))
        names = ("activation_alpha", "activation_beta")  # FusedGemm's names for them
        given = [node.attributes.get_float(n) for n in names if n in node.attributes]
        pairs = zip(("alpha", "beta"), parameters or given, strict=False)
        return emit(name, y, **dict(pairs)) if name else y

    return form


def _standard(emit: Emitter, node: ir.Node) -> Emitted:
    """The same operator in ONNX's own domain."""
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    return emit(node.op_type, *node.inputs, **attributes)


CONTRIB: Mapping[str, Callable[[Emitter, ir.Node], Emitted]] = {
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _gelu,
    "QuickGelu": _quick_gelu,
    "LayerNormalization": _layer_normalization,
    "SimplifiedLayerNormalization": rms_normalization,
    "SkipLayerNormalization": _skip_layer_normalization,
    "FusedMatMul": _fused_matmul,
    "FusedConv": _fused("Conv"),
    "FusedGemm": _fused("Gemm"),
    "QuantizeLinear": _standard,
    "DequantizeLinear": _standard,
}
