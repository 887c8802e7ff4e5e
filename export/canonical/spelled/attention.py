"""ONNX's Attention in the operators of opset 20, so that a method sees its products and weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.budget import ELEMENTS
from onnxplain.export.canonical.emit import Emitted, Emitter, integers
from onnxplain.export.tensors import array_of, attribute, dims, rank, size_of

LOWEST = np.array(np.finfo(np.float32).min)
_BLOCKED = np.float32(-1e37)  # scores below are those of keys that may not be attended


def attention(emit: Emitter, node: ir.Node) -> Emitted:
    """softmax(scale · Q Kᵀ + mask) V, over heads [N, H, L, D]; its four outputs.

    A query that may attend no key has weights of 0.
    """
    q, k, v, mask, past_k, past_v, lengths = [*node.inputs, *[None] * 7][:7]
    assert q is not None
    assert k is not None
    assert v is not None
    merged = rank(q) == 3
    if merged:
        q_heads, kv_heads = attribute(node, "q_num_heads", 0), attribute(node, "kv_num_heads", 0)
        D, Dv = size_of(q, 2) // q_heads, size_of(v, 2) // kv_heads
        q, k, v = (
            _split(emit, x, heads, width)
            for x, heads, width in ((q, q_heads, D), (k, kv_heads, D), (v, kv_heads, Dv))
        )
        L, S = size_of(node.inputs[0], 1), size_of(node.inputs[1], 1)  # type: ignore[arg-type]
    else:
        q_heads, kv_heads, D, Dv = size_of(q, 1), size_of(k, 1), size_of(q, 3), size_of(v, 3)
        L, S = size_of(q, 2), size_of(k, 2)
    past = 0
    if past_k is not None and past_v is not None:
        past = size_of(past_k, 2)
        k, v = emit("Concat", past_k, k, axis=2), emit("Concat", past_v, v, axis=2)
        S += past

    def shared(x: ir.Value, width: int) -> ir.Value:
        """Repeat each head of keys or values for the heads of queries that share it."""
        if kv_heads == q_heads:
            return x
        x = emit("Unsqueeze", x, integers(2))
        x = emit("Expand", x, integers(1, 1, q_heads // kv_heads, 1, 1))
        return emit("Reshape", x, integers(0, q_heads, S, width))

    scale = node.attributes.get_float("scale", 0.0) or D**-0.5
    keys = emit("Transpose", shared(k, D), perm=[0, 1, 3, 2])
    raw = capped = emit("Mul", emit("MatMul", q, keys), np.array(scale))
    if softcap := node.attributes.get_float("softcap", 0.0):
        cap = np.array(softcap)
        capped = emit("Mul", emit("Tanh", emit("Div", capped, cap)), cap)
    scores, blocked = _masked(emit, node, capped, mask, _allowed(node, lengths, L, S, past), S)
    weights = emit("Softmax", scores, axis=-1)
    if blocked is not None:
        weights = emit("Where", blocked, np.array(0, np.float32), weights)
    y = emit("MatMul", weights, shared(v, Dv))
    if merged:
        y = emit("Transpose", y, perm=[0, 2, 1, 3])
        y = emit("Reshape", y, integers(0, 0, q_heads * Dv))

    wanted = [_is_used(value) for value in node.outputs]
    shown = None
    if len(wanted) > 3 and wanted[3]:
        mode = attribute(node, "qk_matmul_output_mode", 0)
        shown = [raw, capped, scores, weights][mode]
        if shown is scores and scores is not capped:
            infinite = emit("Less", scores, np.array(_BLOCKED))
            shown = emit("Where", infinite, np.array(-np.inf, np.float32), scores)
    outputs = [y, k, v, shown][: len(wanted)]
    return [value if used else None for value, used in zip(outputs, wanted, strict=True)]


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _split(emit: Emitter, x: ir.Value, heads: int, width: int) -> ir.Value:
    x = emit("Reshape", x, integers(0, 0, heads, width))
    return emit("Transpose", x, perm=[0, 2, 1, 3])


def _allowed(
    node: ir.Node, lengths: ir.Value | None, L: int, S: int, past: int
) -> np.ndarray | None:
    """Which keys each query may attend by its place, [L, S] or [N, 1, L, S]; None is all."""
    offset = np.array(past)
    within = None
    if lengths is not None:
        known = array_of(lengths)
        if known is None:
            raise SourceError(
                f"Attention {node.name!r} is told the lengths of its keys at run time "
                "(nonpad_kv_seqlen); make them constants"
            )
        ELEMENTS.check(known.size * L * S)
        valid = known.reshape(-1, 1, 1, 1)
        within = np.broadcast_to(np.arange(S) < valid, [len(valid), 1, L, S])
        offset = valid - L if not past else offset
    ELEMENTS.check(L * S)
    left, right = (attribute(node, f"{side}_window_size", -1) for side in ("left", "right"))
    distance = np.arange(S) - (np.arange(L)[:, None] + offset)
    allowed = np.full(distance.shape, True) if within is None else within
    if attribute(node, "is_causal", 0):
        allowed = allowed & (distance <= 0)
    if left >= 0:
        allowed = allowed & (distance >= -left)
    if right >= 0:
        allowed = allowed & (distance <= right)
    return None if allowed.all() else allowed


def _pads(node: ir.Node) -> bool:
    """Whether a mask for one key is for the first alone, as since opset 24; before, for all."""
    return node.graph is None or node.graph.opset_imports.get("", 24) >= 24


def _masked(
    emit: Emitter,
    node: ir.Node,
    scores: ir.Value,
    mask: ir.Value | None,
    allowed: np.ndarray | None,
    S: int,
) -> tuple[ir.Value, ir.Value | np.ndarray | None]:
    """The scores, lowest where a key may not be attended; and which rows attend none, if any may.

    What is known of the mask is decided here, once.
    """
    missing = 0
    if mask is not None and dims(mask)[-1] != S and (dims(mask)[-1] != 1 or _pads(node)):
        missing = S - size_of(mask, -1)  # the keys after a mask's last are not attended
    given = array_of(mask)
    if mask is None or given is not None:
        bias = np.zeros(1, np.float32)
        if given is not None:
            known = given if given.dtype == bool else given > LOWEST / 2
            values = np.zeros(1) if given.dtype == bool else np.where(known, given, 0)
            widths = [(0, 0)] * (given.ndim - 1) + [(0, missing)]
            known = np.pad(known, widths)
            values = values if given.dtype == bool else np.pad(values, widths)
            allowed = known if allowed is None else known & allowed
            bias = values.astype(np.float32)
        if allowed is not None:
            bias = np.where(allowed, bias, LOWEST).astype(np.float32)
        elif given is None:
            return scores, None
        none = None if allowed is None else np.logical_not(allowed).all(-1, keepdims=True)
        if none is not None and not np.any(none):
            none = None
        return emit("Add", scores, bias), none

    fill = np.array(False) if mask.dtype == ir.DataType.BOOL else LOWEST
    if missing:
        ends = [0] * (2 * rank(mask) - 1)
        mask = emit("Pad", mask, integers(*ends, missing), fill)
    if fill.dtype == bool:
        mask = emit("Where", mask, np.array(0, np.float32), LOWEST)
    scores = emit("Add", scores, mask)
    if allowed is not None:
        scores = emit("Where", allowed, scores, LOWEST)
    scores = emit("Max", scores, LOWEST)
    best = emit("ReduceMax", scores, integers(-1), keepdims=1)
    return scores, emit("Less", best, np.array(_BLOCKED))
