"""Protocol buffers' text format, as far as a `config.pbtxt` needs it.

protobuf's own `text_format` prints messages of compiled types, and Triton's types come only with
its client, which brings gRPC. The tests have the client, and parse this text by its schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Enum(str):
    """The name of a constant, which is written without quotes."""


def prototext(message: Mapping[str, Any], indent: str = "") -> str:
    """A message as text; a field holds a number, text, `Enum`, message, or a list of those."""
    return "".join(_field(name, value, indent) for name, value in message.items())


def entries(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A map field, as the list of key-value messages that it is."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _field(name: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{prototext(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(entry, Mapping) for entry in value):
            return "".join(_field(name, entry, indent) for entry in value)
        return f"{indent}{name}: [ {', '.join(map(_scalar, value))} ]\n"
    return f"{indent}{name}: {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Enum):
        return json.dumps(value)
    return str(value)
