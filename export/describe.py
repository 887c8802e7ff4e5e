"""What a file says of its network: preprocessing, classes, and what had to be assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import SourceError
from onnxplain.export.canonical.ends import image_size
from onnxplain.export.sources.source import Source
from onnxplain.export.tensors import dims


def preprocessing(
    image: ir.Value,
    given: Preprocessing | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """What the source says, or the user; ImageNet's where neither does."""
    height, width, channels = image_size(image)
    if given is None:
        # Of the longer side, so that a wide crop lies within any photograph.
        given = Preprocessing(height, width, resize=round(max(height, width) * 256 / 224))
        if channels != given.channels:
            given = replace(given, mean=(0.5,) * channels, std=(0.5,) * channels)
    if mean is not None:
        given = replace(given, mean=tuple(float(value) for value in mean))
    if std is not None:
        given = replace(given, std=tuple(float(value) for value in std))
    if not np.isfinite([*given.mean, *given.std]).all() or min(given.std) <= 0:
        raise SourceError(f"mean and std must be finite, std positive: {given.mean}, {given.std}")
    if not len(given.mean) == len(given.std) == channels:
        raise SourceError(
            f"mean and std have {len(given.mean)} and {len(given.std)} entries; the network's "
            f"input has {channels} channels"
        )
    layout = "NCHW" if dims(image)[1] == channels else "NHWC"
    return replace(given, height=height, width=width, layout=layout)


def checked_labels(logits: ir.Value, labels: tuple[str, ...]) -> tuple[str, ...]:
    classes = dims(logits)[1]
    if labels and len(labels) != classes:
        raise SourceError(f"{len(labels)} labels for {classes} classes")
    return labels


def notes(
    image: ir.Value,
    found: Source,
    pre: Preprocessing,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[str, ...]:
    """What the user should know: a fixed batch with its reason, a normalisation taken on trust."""
    found_out = []
    batch = dims(image)[0]
    if isinstance(batch, int):
        why = f": {found.fixed_batch}" if found.fixed_batch else ""
        found_out.append(f"the graph takes batches of {batch} alone{why}")
    if found.preprocessing is None and mean is None and std is None:
        found_out.append(
            f"assumed ImageNet's mean {pre.mean} and std {pre.std}; if the network wants others, "
            "give --mean and --std"
        )
    return tuple(found_out)
