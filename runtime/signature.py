"""What an explain graph declares about itself: the contract of §2 as one file fulfils it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from onnxplain.contract import (
    ACCENTUATED,
    IMAGE,
    LOGITS,
    NEXT_IMAGE,
    PULLBACK,
    TARGET,
    TEMPERATURE,
    Metadata,
)
from onnxplain.errors import BackendError

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
}


@dataclass(frozen=True)
class Signature:
    """`dtype` is the image's; `batch` is None when any number of images can be run at once."""

    metadata: Metadata
    dtype: np.dtype[Any]
    batch: int | None
    classes: int
    multi_target: bool
    live_temperature: bool
    step: bool

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession) -> Signature:
        """Read it from a session.

        Raises:
            BackendError: the graph is not an explain graph.
        """
        metadata = Metadata.from_props(session.get_modelmeta().custom_metadata_map)
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
        if ACCENTUATED in outputs:
            raise BackendError(
                "the graph was exported with --unroll: it accentuates in one call of any ONNX "
                "runtime, and has no pullback to explain with"
            )
        _require((IMAGE, TARGET), inputs, "input")
        _require((LOGITS, PULLBACK), outputs, "output")
        image, logits = inputs[IMAGE], outputs[LOGITS].shape
        if image.type not in _DTYPES:
            raise BackendError(f"the graph's '{IMAGE}' is a {image.type}, not a float tensor")
        if len(image.shape) != 4 or len(logits) != 2 or not isinstance(logits[1], int):
            raise BackendError(
                f"the graph declares '{IMAGE}' as {image.shape} and '{LOGITS}' as {logits}, not as "
                "a batch of images and a known number of classes; export it again"
            )
        return cls(
            metadata=metadata,
            dtype=_DTYPES[image.type],
            batch=image.shape[0] if isinstance(image.shape[0], int) else None,
            classes=logits[1],
            multi_target=len(inputs[TARGET].shape) == 2,
            live_temperature=TEMPERATURE in inputs,
            step=NEXT_IMAGE in outputs,
        )


def _require(names: Iterable[str], present: Iterable[str], kind: str) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise BackendError(
            f"the graph has onnxplain metadata but no {kind} '{missing[0]}'; export it again"
        )
