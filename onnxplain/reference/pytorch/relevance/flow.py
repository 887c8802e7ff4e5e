"""The mode in which autograd carries relevance, and its table: torch function → rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch.relevance import layers, pools, values
from onnxplain.reference.pytorch.relevance.shared import (
    Flow,
    gate,
    is_weight,
    mark_weight,
    passed_on,
    passes,
    varying,
)
from onnxplain.reference.pytorch.relevance.sharing import SHARINGS
from onnxplain.reference.pytorch.replace import Replacements, Rule, replaced


def _named(*names: str) -> list[Callable[..., Any]]:
    """The functions of these names, of torch, of tensors and of torch.nn.functional."""
    owners: Sequence[Any] = (torch, Tensor, functional)
    found = [getattr(owner, name, None) for owner in owners for name in names]
    return [func for func in found if callable(func)]


TABLE: list[tuple[str, Rule]] = [
    ("conv1d conv2d conv3d linear", layers.weighted),
    ("conv_transpose1d conv_transpose2d conv_transpose3d", layers.transposed_convolution),
    ("batch_norm", layers.batch_norm),
    ("matmul bmm mm __matmul__", values.matrices),
    ("__rmatmul__", values.product_of(lambda a, b: b @ a)),
    ("einsum", values.einsum),
    ("scaled_dot_product_attention", values.attention),
    ("multi_head_attention_forward", values.attention_module),
    ("softmax", values.weights),
    ("sigmoid sigmoid_ hardsigmoid", gate),
    ("glu", values.gated_halves),
    ("add add_ __add__ __radd__ __iadd__", values.add),
    ("sub sub_ subtract __sub__ __rsub__ __isub__ rsub", values.add),
    ("mul mul_ multiply __mul__ __rmul__ __imul__", values.elementwise),
    ("div div_ divide true_divide __truediv__ __itruediv__ pow __pow__", values.elementwise),
    ("maximum minimum", values.extremum),
    ("avg_pool1d avg_pool2d avg_pool3d sum mean", pools.pool()),
    ("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", pools.pool()),
    ("max_pool2d", pools.pool(pools.average_of_window)),
    ("adaptive_max_pool2d", pools.pool(functional.adaptive_avg_pool2d)),
    ("amax", pools.pool(torch.mean)),
    ("interpolate", pools.interpolate),
    ("relu relu_ relu6 hardtanh hardtanh_ leaky_relu leaky_relu_ rrelu prelu threshold", passes),
    ("elu elu_ selu selu_ celu celu_ gelu silu mish hardswish softplus softsign", passes),
    ("tanh tanh_ tanhshrink softshrink hardshrink logsigmoid erf", passes),
    ("clamp clamp_ clamp_min clamp_min_ clamp_max clip clip_", passes),
    ("neg __neg__ abs square sqrt rsqrt exp log reciprocal __rdiv__ __rtruediv__", passes),
    ("layer_norm group_norm instance_norm local_response_norm normalize rms_norm", passes),
]
"""Names of functions → their rule."""

_RULES = {func: rule for names, rule in TABLE for func in _named(*names.split())}

MOVES = (
    "cat concat stack split chunk unbind tensor_split split_with_sizes narrow select __getitem__ "
    "reshape view view_as flatten unflatten squeeze unsqueeze permute transpose swapaxes movedim t "
    "expand expand_as repeat repeat_interleave tile broadcast_to index_select gather "
    "take_along_dim contiguous clone to type type_as float double requires_grad_ roll flip rot90 "
    "pad pixel_shuffle pixel_unshuffle channel_shuffle where masked_fill masked_fill_ tril triu "
    "dropout dropout2d alpha_dropout topk sort unfold"
)
"""Functions by which each number goes back to where it came from, as its gradient does."""

_MOVES = {
    *_named(*MOVES.split()),
    Tensor.T.__get__,  # type: ignore[attr-defined]
    Tensor.mT.__get__,  # type: ignore[attr-defined]
}

_LINEAR = {
    *_MOVES,
    *_named("conv1d", "conv2d", "linear", "matmul", "__matmul__", "batch_norm"),
    *_named("add", "__add__", "__radd__", "sub", "__sub__", "mul", "__mul__", "__rmul__"),
    *_named("div", "__truediv__", "sum", "mean", "avg_pool2d", "adaptive_avg_pool2d"),
}
"""What is linear in gates is a gate."""

_WHOLE = re.compile(r"(Norm|GRN)(Act)?((Exp)?\dd)?(Fp32)?$|GELU\w*$")


class RelevanceFlow(Flow):
    """While entered, the backward pass carries relevance.

    Parameters must not require gradients: what requires one is what depends on the image.

    Args:
        method: one of `SHARINGS`.
        epsilon: its stabiliser; the method's own where None.
        others: more of what `Sharing` has, of zennit's composites.

    Raises:
        NoRuleError: a function has no rule, on the way of the image.
    """

    def __init__(
        self, method: str = "lrp-zplus", epsilon: float | None = None, **others: Any
    ) -> None:
        super().__init__(Replacements(_RULES))
        sharing = SHARINGS[method]
        others |= {} if epsilon is None else {"epsilon": epsilon}
        self.sharing = replace(sharing, **others)
        self._whole = 0  # how many modules are running that pass relevance on as a whole

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._whole:
            return func(*args, **(kwargs or {}))
        found = super().__torch_function__(func, types, args, kwargs)
        given = varying(args)
        if func in _LINEAR and given and all(map(is_weight, given)):
            mark_weight(found)
        if func not in _RULES and func not in _MOVES and varying([found]):
            raise NoRuleError(f"the reference has no rule of relevance for {func}")
        return found

    def _begin(self, module: nn.Module, args: Any) -> None:
        super()._begin(module, args)
        self._whole += _passes_as_a_whole(module)

    def _end(self, module: nn.Module, args: Any, output: Any) -> Any:
        output = super()._end(module, args, output)
        if not _passes_as_a_whole(module):
            return output
        self._whole -= 1
        return replaced(lambda x: output.detach(), args[0], passed_on)


def _passes_as_a_whole(module: nn.Module) -> bool:
    """Normalisations and GELUs, some of which are spelled out."""
    name = type(module).__name__
    return bool(_WHOLE.search(name)) and "BatchNorm" not in name
