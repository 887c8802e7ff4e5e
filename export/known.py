"""What is known of networks by name: the temperature that was tuned for each, and the best layer.

Their preprocessing is not here, as each source says it of its own weights (`export.sources`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxplain.contract.request import ExportOptions
from onnxplain.export.methods import Method
from onnxplain.export.methods.method import TEMPERATURE
from onnxplain.export.registry import Registry

_DEFAULT_WEIGHTS = "DEFAULT"


@dataclass(frozen=True)
class Known:
    """What suits a network with its trained weights.

    Attributes:
        name: as `onnxplain.export` takes it.
        source: by what it was found.
        temperatures: by the name of a method.
        layers: where an activation map looks, by the name of a method.
        aliases: what else it is called; spelling does not count.
    """

    name: str
    source: str
    temperatures: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


KNOWN: Registry[Known] = Registry("known network")
"""Name → what is known of it."""

register_network = KNOWN.register

register_network(
    Known(
        "efficientnet-lite0",
        "onnxplain tune chose 0.97 (docs/accentuation.md); layers by bench.gallery",
        temperatures={"excitation": 1.0},
        layers={"layercam": "_blocks.10"},
    )
)
for _name in ("resnet50", "vgg11_bn", "densenet121"):
    register_network(Known(_name, "Satkiewicz 2025, arXiv 2507.22832 v1", {"excitation": 0.3}))


def known_of(source: Any) -> Known | None:
    """What is known of a source; None of a file, a module, or another network."""
    if not isinstance(source, str | os.PathLike) or Path(source).exists():
        return None
    return KNOWN.find(os.fspath(source))


def suited(options: ExportOptions, method: Method, source: Any) -> ExportOptions:
    """The options, what is left open in them being what suits the network, with its own weights."""
    known = known_of(source)
    if known is None or options.weights.upper() != _DEFAULT_WEIGHTS:
        return options
    own = known.temperatures.get(method.name)
    if own is not None and not given_temperature(options):
        options = replace(options, temperature=own)
    layer = known.layers.get(method.name)
    if layer is not None and options.layer is None:
        options = replace(options, layer=layer)
    return options


def untuned(options: ExportOptions, method: Method, source: Any) -> str | None:
    """What to say where a temperature is left open that nobody tuned for the network."""
    known = known_of(source)
    tuned = known is not None and method.name in known.temperatures
    live = options.live_temperature  # which the caller sets later
    if tuned or live or not method.has_temperature or given_temperature(options):
        return None
    named = os.fspath(source) if isinstance(source, str | os.PathLike) else "FILE.onnx"
    return (
        f"the temperature of {method.name} is the paper's, for other networks; this one's own is "
        f"found on a few photographs by: onnxplain tune {named} photos/ --method {method.name}"
    )


def given_temperature(options: ExportOptions) -> bool:
    """Whether the caller chose one."""
    return options.temperature is not None or TEMPERATURE in (options.parameters or {})
