"""Excitation with `onnxplain.kernels`: what PyTorch can do at its fastest, on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from onnxplain.errors import InputError
from onnxplain.reference.clamps import CLAMPS, TOPS
from onnxplain.reference.pools import MAX_POOLS, read_window
from onnxplain.reference.replace import ReplacedBackward, Replacements, Rule


def excitation() -> Replacements:
    """The replacements of `onnxplain.reference.excitation`, for CUDA tensors.

    Raises:
        InputError: Triton is not installed.
    """
    try:
        from onnxplain.kernels.torch_ops import SoftMaxPool, SoftReLU
    except ImportError as error:
        raise InputError(
            f"the kernels need Triton, which PyTorch brings on Linux: {error}"
        ) from None

    def rectifier(read: Callable[..., tuple[Any, Any]]) -> Rule:
        def rule(
            mode: ReplacedBackward, func: Callable[..., Any], z: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            top = TOPS.get(read(*args, **kwargs))
            if top is None:
                return NotImplemented
            in_place = kwargs.get("inplace") or True in args or func.__name__.endswith("_")
            y = SoftReLU.apply(z.clone() if in_place else z, top, mode.T)
            return z.copy_(y) if in_place else y

        return rule

    def pool(axes: int) -> Rule:
        def rule(
            mode: ReplacedBackward,
            func: Callable[..., Any],
            x: Tensor,
            *args: Any,
            **kwargs: Any,
        ) -> Tensor:
            window, ceil_mode = read_window(axes, *args, **kwargs)
            return SoftMaxPool.apply(x, *window, ceil_mode, mode.T)

        return rule

    functions: dict[Callable[..., Any], Rule] = {f: rectifier(read) for f, read in CLAMPS.items()}
    # The kernels know two axes; a pool along three keeps the other implementation.
    functions |= {func: pool(axes) for func, axes in MAX_POOLS.items() if axes < 3}
    return Replacements(functions)
