"""What a graph of layers' channels carries, which `onnxplain.vital.graphs` writes.

Beside the entries of `onnxplain.contract.explain.Metadata`, as JSON under one key of the file's
`metadata_props`, so that a runtime needs the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from onnxplain.contract.entries import Entry

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""


def maximum(index: int) -> str:
    """The output of layer `index`: each channel's greatest activation, float [N, C]."""
    return f"maximum_{index}"


def position(index: int) -> str:
    """The output with the first position of that maximum, counted row by row: int64 [N, C]."""
    return f"position_{index}"


def mean(index: int) -> str:
    """The output with each channel's mean over the positions, float [N, C]."""
    return f"mean_{index}"


class Span(NamedTuple):
    """Along an axis, position p sees the pixels from `first` + `stride`·p to `last` + `stride`·p.

    Some of them may lie outside the picture, in the padding.
    """

    stride: int
    first: int
    last: int


@dataclass(frozen=True)
class ChannelLayer:
    """A layer whose channels are outputs.

    Attributes:
        name: for people.
        channels: how many there are.
        grid: rows and columns of positions; (1, P) for P tokens, (1, 1) without positions.
        field: the receptive field along rows and columns; None if a position sees everything.
    """

    name: str
    channels: int
    grid: tuple[int, int]
    field: tuple[Span, Span] | None

    def cell(self, position: int) -> tuple[int, int]:
        """Row and column of a position."""
        return divmod(position, self.grid[1])

    def box(self, position: int, height: int, width: int) -> Box:
        """What a position sees of the network's input, given that input's height and width."""
        if self.field is None:
            return 0, 0, width, height
        (top, bottom), (left, right) = (
            (span.first + span.stride * at, span.last + span.stride * at + 1)
            for span, at in zip(self.field, self.cell(position), strict=True)
        )
        return max(left, 0), max(top, 0), min(right, width), min(bottom, height)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ChannelLayer:
        """From what `dataclasses.asdict` becomes in JSON."""
        rows, columns = entry["grid"]
        field = entry["field"]
        spans = None if field is None else (Span(*field[0]), Span(*field[1]))
        return cls(entry["name"], entry["channels"], (rows, columns), spans)


@dataclass(frozen=True)
class ChannelsMetadata(Entry):
    """The layers in the order of the outputs, and the batch size if it is fixed."""

    KEY = "onnxplain.channels"
    KIND = "graph of a layer's channels"

    layers: tuple[ChannelLayer, ...]
    batch: int | None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        layers = tuple(ChannelLayer.from_json(layer) for layer in entry["layers"])
        return cls(layers, entry["batch"])
