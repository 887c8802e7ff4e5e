"""What the graphs of `onnxplain.signal` carry: an autoencoder, a classifier, or both in a row.

Their input is `image`, float32 [N, C, size, size] with pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from onnxplain.contract.entries import Entry, listed

RECONSTRUCTION = "reconstruction"
"""The output of an autoencoder, of the shape of `image`; that of a classifier is `logits`."""


@dataclass(frozen=True)
class SignalMetadata(Entry):
    """The pictures' channels, their width and height, and the names of the classes, if any."""

    KEY = "onnxplain.signal"
    KIND = (
        "graph of an autoencoder; make one with `onnxplain signal train` or `onnxplain signal "
        "export`"
    )

    channels: int
    size: int
    classes: tuple[str, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        return cls(entry["channels"], entry["size"], listed("classes", entry["classes"]))
