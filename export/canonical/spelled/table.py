"""Which operators are spelled in others: those whose sweep through others is their rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.emit import Emitted, Emitter
from onnxplain.export.canonical.spelled.attention import attention
from onnxplain.export.canonical.spelled.fourier import dft, stft
from onnxplain.export.canonical.spelled.moves import (
    array_feature_extractor,
    compress,
    cumulative_product,
    determinant,
    is_there,
    optional_get_element,
    reverse_sequence,
    space_to_depth,
    tensor_scatter,
)
from onnxplain.export.canonical.spelled.normalisations import (
    group_normalization,
    rms_normalization,
)
from onnxplain.export.canonical.spelled.recurrent import needs_spelling, recurrent
from onnxplain.export.canonical.spelled.sampling import (
    deformable_convolution,
    is_line,
    sampled_line,
)


def always(node: ir.Node) -> bool:
    return True


@dataclass(frozen=True)
class Spelling:
    """`form(emit, node)` emits what stands for a node, `when` it is to be replaced.

    `attributes` are those that the form knows; any other is an error.
    """

    form: Callable[[Emitter, ir.Node], Emitted]
    attributes: frozenset[str] = frozenset()
    when: Callable[[ir.Node], bool] = always


def spelling_of(node: ir.Node) -> Spelling | None:
    """
    Raises:
        SourceError: the node has an attribute that the form does not know.
    """
    spelling = SPELLINGS.get(operator_name(node))
    if spelling is None:
        return None
    if unknown := set(node.attributes) - spelling.attributes:
        raise SourceError(
            f"{node.op_type} {node.name!r} has {', '.join(sorted(unknown))}, which onnxplain does "
            "not know"
        )
    return spelling if spelling.when(node) else None


def swish(emit: Emitter, node: ir.Node) -> Emitted:
    """x · σ(alpha · x)."""
    x, alpha = node.inputs[0], node.attributes.get_float("alpha", 1.0)
    inner = x if alpha == 1 else emit("Mul", x, np.array(alpha, np.float32))
    return emit("Mul", x, emit("Sigmoid", inner))


_RECURRENT = frozenset(
    {"activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"}
) | {"layout"}

SPELLINGS: Mapping[str, Spelling] = {
    "Attention": Spelling(
        attention,
        frozenset(
            {
                "is_causal",
                "kv_num_heads",
                "left_window_size",
                "q_num_heads",
                "qk_matmul_output_mode",
                "right_window_size",
                "scale",
                "softcap",
                "softmax_precision",
            }
        ),
    ),
    "Compress": Spelling(compress, frozenset({"axis"})),
    "CumProd": Spelling(cumulative_product, frozenset({"exclusive", "reverse"})),
    "Det": Spelling(determinant),
    "DFT": Spelling(dft, frozenset({"inverse", "onesided"})),
    "DeformConv": Spelling(
        deformable_convolution,
        frozenset({"dilations", "group", "kernel_shape", "offset_group", "pads", "strides"}),
    ),
    "GridSample": Spelling(
        sampled_line, frozenset({"align_corners", "mode", "padding_mode"}), is_line
    ),
    "GroupNormalization": Spelling(
        group_normalization, frozenset({"epsilon", "num_groups", "stash_type"})
    ),
    "OptionalGetElement": Spelling(optional_get_element, when=is_there),
    "RMSNormalization": Spelling(rms_normalization, frozenset({"axis", "epsilon", "stash_type"})),
    "GRU": Spelling(recurrent, _RECURRENT | frozenset({"linear_before_reset"}), needs_spelling),
    "LSTM": Spelling(recurrent, _RECURRENT | frozenset({"input_forget"}), needs_spelling),
    "RNN": Spelling(recurrent, _RECURRENT, needs_spelling),
    "ReverseSequence": Spelling(reverse_sequence, frozenset({"batch_axis", "time_axis"})),
    "STFT": Spelling(stft, frozenset({"onesided"})),
    "SpaceToDepth": Spelling(
        space_to_depth, frozenset({"blocksize", "mode"}), lambda node: "mode" in node.attributes
    ),
    "Swish": Spelling(swish, frozenset({"alpha"})),
    "TensorScatter": Spelling(tensor_scatter, frozenset({"axis", "mode"})),
    "ai.onnx.ml::ArrayFeatureExtractor": Spelling(array_feature_extractor),
}
