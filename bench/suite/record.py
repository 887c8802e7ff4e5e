"""Reading a record of the benchmark, as `measure` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[str, str]
"""(kind, name) of a candidate."""

KERNELS = ", kernels"
"""What ends the name of an engine that has the library of fused operations."""

EAGER: Key = ("explain", "PyTorch eager")


def where(record: Record) -> str:
    """What was measured, "resnet50, batch 1"."""
    return f"{record['network']}, batch {record['batch']}"


def timed(record: Record) -> list[Record]:
    """The rows of the candidates that ran, the fastest first."""
    return sorted((r for r in record["rows"] if "median" in r), key=lambda row: row["median"])


def seconds(record: Record) -> dict[Key, float]:
    """The median of each candidate that ran."""
    return {(row["kind"], row["name"]): row["median"] for row in timed(record)}
