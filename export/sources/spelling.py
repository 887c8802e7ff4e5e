"""What PyTorch's exporter has no form of for every shape, spelled in functions of which it has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxplain.errors import SourceError


def spelled() -> contextlib.AbstractContextManager[Any]:
    """Inside, attention is traced as softmax(scale · q kᵀ + mask) v, and an adaptive pool over axes
    of open size as products with the shares of its cells.

    PyTorch's exporter takes `scaled_dot_product_attention` in four dimensions only, and gives its
    result strides that the views after it may not fit. Of a pool to several cells it writes down
    how large those of the example are.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    spellings: dict[Any, Callable[..., Any]] = {
        functional.scaled_dot_product_attention: _attention,
        torch.adaptive_avg_pool1d: _averages(torch.adaptive_avg_pool1d, 1),
        functional.adaptive_avg_pool2d: _averages(functional.adaptive_avg_pool2d, 2),
        functional.adaptive_avg_pool3d: _averages(functional.adaptive_avg_pool3d, 3),
        functional.adaptive_max_pool1d: _maxima(functional.adaptive_max_pool1d, 1),
        functional.adaptive_max_pool2d: _maxima(functional.adaptive_max_pool2d, 2),
        functional.adaptive_max_pool3d: _maxima(functional.adaptive_max_pool3d, 3),
    }

    class Spelled(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return spellings.get(function, function)(*args, **(kwargs or {}))

    return Spelled()


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    import torch

    if enable_gqa:
        key, value = (
            x.repeat_interleave(query.size(-3) // x.size(-3), dim=-3) for x in (key, value)
        )
    scores = (query * (query.size(-1) ** -0.5 if scale is None else scale)) @ key.mT
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1) @ value


def _averages(pool: Callable[..., Any], along: int) -> Callable[..., Any]:
    """An adaptive average pool over the last axes, spelled where some are of open size, unless all
    are left as they are or become one cell, of which the exporter has a form: one product over all
    that are shared out, as it is one layer to a rule of relevance."""

    def spelling(input: Any, output_size: Any) -> Any:
        cells = _cells(output_size, along)
        if not _open_axes(input, along) or {*cells} in ({1}, {None}):
            return pool(input, output_size)
        shared = {axis: n for axis, n in enumerate(cells, -along) if n is not None}
        rows = [*range(-len(shared) - 1, -1)]
        places = input.movedim([*shared], rows).flatten(rows[0], -2)
        means = _shares(input, shared) @ places
        return means.unflatten(-2, [*shared.values()]).movedim(rows, [*shared])

    return spelling


def _maxima(pool: Callable[..., Any], along: int) -> Callable[..., Any]:
    """
    Raises:
        SourceError: an adaptive maximum pool to several cells, over axes of open size.
    """

    def spelling(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        cells, open_ = _cells(output_size, along), _open_axes(input, along)
        if any(cells[axis] not in (None, 1) for axis in open_):
            raise SourceError(
                f"an adaptive maximum pool to {output_size} has other windows at every size, which "
                "no operator of ONNX has: give a number, size=HEIGHT"
            )
        return pool(input, output_size, return_indices)

    return spelling


def _cells(output_size: Any, along: int) -> Sequence[int | None]:
    """How many along each axis; None where it is left as it is."""
    return [output_size] * along if isinstance(output_size, int) else output_size


def _open_axes(x: Any, along: int) -> list[int]:
    """Which of the last axes are of open size."""
    return [axis for axis in range(-along, 0) if not isinstance(x.shape[axis], int)]


def _shares(x: Any, cells: Mapping[int, int]) -> Any:
    """How much each place counts in the mean of each cell: [cells, places], of all axes.

    Args:
        cells: how many along each axis.
    """
    shares = None
    for axis, count in cells.items():
        own = _shares_along(x, axis, count)
        if shares is not None:
            own = (shares[:, None, :, None] * own[None, :, None, :]).flatten(2).flatten(0, 1)
        shares = own
    return shares


def _shares_along(x: Any, axis: int, count: int) -> Any:
    """The same along one axis.

    Of n places those from ⌊i n / cells⌋ to ⌈(i + 1) n / cells⌉ are in the cell i.
    """
    import torch

    n = x.shape[axis]
    cell, place = torch.arange(count, device=x.device)[:, None], torch.arange(n, device=x.device)
    many = torch.arange(n, n + 1, device=x.device)  # n where x is, and not where sizes are computed
    inside = (cell * many < (place + 1) * count) & (place * count < (cell + 1) * many)
    counted = inside.to(x.dtype)
    return counted / counted.sum(1, keepdim=True)
