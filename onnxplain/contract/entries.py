"""A dataclass as one JSON entry of an ONNX file's `metadata_props`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from onnxplain.errors import BackendError


def to_props(key: str, entry: Any) -> dict[str, str]:
    """The dataclass instance `entry` under `key`."""
    return {key: json.dumps(dataclasses.asdict(entry))}


def read_entry(props: Mapping[str, str], key: str, kind: str) -> dict[str, Any]:
    """What stands under `key`, as `dataclasses.asdict` made it.

    Args:
        kind: what a file with that entry is, for the message: "graph of a layer's channels".

    Raises:
        BackendError: the file has no such entry.
    """
    if key not in props:
        raise BackendError(f"this ONNX file is no {kind}")
    entry: dict[str, Any] = json.loads(props[key])
    return entry
