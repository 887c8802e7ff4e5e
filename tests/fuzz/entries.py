"""What files say of themselves, nearly as exports write it."""

from __future__ import annotations

import inspect
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxplain
from onnxplain.cli.info import info
from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, Span
from onnxplain.contract.derivatives import Derivatives
from onnxplain.contract.signals import SignalMetadata
from onnxplain.contract.steps import MatchedLayer, StepMetadata
from onnxplain.errors import InputError
from onnxplain.runtime.onnx_file import read_metadata

from .mutants import VALUES, other
from .scrambled import scrambled
from .seeds import convolutional, explain_graphs

_OF_OTHERS = (
    ChannelsMetadata((ChannelLayer("c", 4, (4, 4), (Span(2, -1, 1), Span(2, 0, 2))),), None),
    StepMetadata((MatchedLayer("c", 4, 16),), None, {"next_image": "image"}, None, "batch"),
    SignalMetadata(3, 8, tuple("abcde")),
)
_MORE: tuple[Any, ...] = (*VALUES, False, -0.5, 1e-40, 2**31, 2**63, "\ud800", "NHWC", "box", "map")
_show = inspect.unwrap(info)  # which raises what the command says
_DEEP = "[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "1e999", "-Infinity", "NaN", "", "\0"


def seeds(folder: Path) -> list[onnx.ModelProto]:
    """Explain graphs, with what graphs of other kinds say beside; and a file of derivatives."""
    entries = {k: v for entry in _OF_OTHERS for k, v in entry.to_props().items()}
    graphs = []
    for graph in explain_graphs():
        graphs.append(copy := onnx.ModelProto())
        copy.CopyFrom(graph)
        for key, value in entries.items():
            copy.metadata_props.add(key=key, value=value)
    source, derivatives = folder / "source.onnx", folder / "derivatives.onnx"
    onnx.save(convolutional(), source)
    onnxplain.differentiate(source, derivatives, second=True)
    return [*graphs, onnx.load(derivatives)]


def mutant(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """A copy of which one to four entries say something else."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not copy.metadata_props:
            break
        at = rng.randrange(len(copy.metadata_props))
        entry = copy.metadata_props[at]
        match rng.randrange(12):
            case 0:
                del copy.metadata_props[at]
            case 1:
                copy.metadata_props.add(key=entry.key, value=entry.value[::-1])
            case 2:
                entry.value = rng.choice(_DEEP)
            case 3:
                entry.value = scrambled(entry.value.encode(), rng).decode("latin-1")
            case 4:
                entry.key = rng.choice(copy.metadata_props).key
            case _:
                entry.value = _changed(entry.value, rng)
    return copy.SerializeToString()


def attempt(path: Path) -> None:
    """Shown, explained with, and climbed along where it says a way up."""
    props = read_metadata(path)
    for kind in (ChannelsMetadata, StepMetadata, SignalMetadata):
        _use(kind.find(props))
    _show(path, None, True)
    if Derivatives.find(props) is not None:
        return
    explainer = onnxplain.load(path, "cpu")
    image = np.zeros((9, 11, 3), np.uint8)
    explainer(image).labels()
    with suppress(InputError):
        onnxplain.accentuate(explainer, image, steps=1)


def _changed(text: str, rng: random.Random) -> str:
    """JSON with another value, key or number of entries somewhere in it."""
    try:
        tree = json.loads(text)
    except (RecursionError, ValueError):
        return str(rng.choice(_MORE)).encode("utf-8", "replace").decode()
    part, within = tree, [tree]
    while isinstance(part, dict | list) and part:
        within.append(part := rng.choice([*part.values()] if isinstance(part, dict) else part))
    holder = rng.choice([one for one in within if isinstance(one, dict | list)] or [None])
    match rng.randrange(6):
        case 0 if isinstance(holder, dict):
            holder[str(rng.choice(_MORE))] = rng.choice(_MORE)
        case 0 if isinstance(holder, list):
            holder += [*holder, rng.choice(_MORE)] * rng.choice([1, 1, 100])
        case 1 if holder:
            del holder[rng.choice([*holder]) if isinstance(holder, dict) else 0]
        case 2 if isinstance(holder, dict) and holder:
            name = rng.choice([*holder])
            holder[name.upper()] = holder.pop(name)
        case 3:
            tree = [tree]
        case _:
            tree = other(tree, rng)
    return json.dumps(tree)


def _use(found: object) -> None:
    if isinstance(found, ChannelsMetadata):
        for layer in found.layers:
            layer.box(layer.channels - 1, 8, 8)
