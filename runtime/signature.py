"""What an explain graph takes and gives, read from its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxplain.contract.explain import (
    ACCENTUATED,
    IMAGE,
    LOGITS,
    NEXT_IMAGE,
    PULLBACK,
    TARGET,
    TEMPERATURE,
    Metadata,
)
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.contract.pixels import PHOTOGRAPH, PULLBACK_SCALE, Pixels
from onnxplain.contract.values import Values
from onnxplain.errors import BackendError

_LARGEST_BATCH = 2**16
_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: numpy's name of its dtype, and its shape, None where open."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """`dtype` is that of what is explained; `batch` is None where the number of images in a run is
    open.

    It is then from `least` to `most`, any number from `least` on where that is None.
    `live` names the method's parameters that are inputs of the graph. `classes` is how many a
    target chooses from, 0 where there is no target; `outputs` are the network's own, `logits` of a
    classifier, and what its objective tells beside itself; `inputs` are the network's own, `image`
    or those of `metadata.values`.
    """

    metadata: Metadata
    dtype: np.dtype[Any]
    batch: int | None
    classes: int
    multi_target: bool
    live: tuple[str, ...]
    step: bool
    least: int = 1
    most: int | None = None
    outputs: Mapping[str, Port] = field(default_factory=dict)
    inputs: Mapping[str, Port] = field(default_factory=dict)

    @property
    def has_target(self) -> bool:
        explained = self.metadata.objective
        return explained.is_class or TARGET in explained.inputs

    @property
    def live_temperature(self) -> bool:
        return TEMPERATURE in self.live

    @classmethod
    def of(
        cls, props: Mapping[str, str], inputs: Mapping[str, Port], outputs: Mapping[str, Port]
    ) -> Signature:
        """Read it from a file's `metadata_props` and its inputs and outputs by name.

        Raises:
            BackendError: the graph is not an explain graph.
        """
        metadata = Metadata.from_props(props)
        if ACCENTUATED in outputs:
            raise BackendError(
                "the graph was exported with unroll=: it accentuates in one call of any ONNX "
                "runtime, and has no pullback to explain with"
            )
        explained, values = metadata.objective, metadata.values
        own = tuple(values.inputs) or (IMAGE,)
        pullbacks = [one.pullback for one in values.explained.values()] or [PULLBACK]
        taken = (*([TARGET] if explained.is_class else []), *explained.inputs)
        estimated = metadata.estimator
        _require((*own, *taken, *estimated.inputs), inputs, "input")
        _require((LOGITS if explained.is_class else OBJECTIVE, *pullbacks), outputs, "output")
        scale = [PULLBACK_SCALE] if metadata.pixels.quantised else []
        _require((*estimated.outputs, *scale), outputs, "output")
        classes = _classes(outputs[LOGITS].shape) if explained.is_class else explained.classes
        dtype = outputs[pullbacks[0]].dtype if values else inputs[IMAGE].dtype
        if metadata.pixels:
            _check_pixels(metadata.pixels, inputs[IMAGE])
            _check_geometry(metadata, outputs[PULLBACK].shape)
            dtype = outputs[LOGITS if explained.is_class else OBJECTIVE].dtype
        if dtype not in _DTYPES:
            raise BackendError(f"the graph's '{own[0]}' is of {dtype}, not a float tensor")
        if values:
            _check_values(values, inputs)
        elif not metadata.pixels:
            _check_image(metadata, inputs[IMAGE].shape)
        _check_batch(inputs[own[0]].shape)
        _check_labels(metadata, classes)
        for name, one in explained.inputs.items():
            if name != TARGET and inputs[name].shape[1:] != one.shape:
                raise BackendError(
                    f"the file's metadata say that '{name}' is {_text(one.shape)} per image, its "
                    f"graph {_text(inputs[name].shape[1:])}; export it again"
                )
        return cls(
            metadata=metadata,
            dtype=np.dtype(dtype),
            batch=inputs[own[0]].shape[0],
            classes=classes,
            multi_target=TARGET in inputs and len(inputs[TARGET].shape) == 2,
            live=tuple(
                name
                for name in {TEMPERATURE: 0, **metadata.parameters}
                if name in inputs and name not in own
            ),
            step=NEXT_IMAGE in outputs,
            outputs={
                name: port
                for name, port in outputs.items()
                if name not in (OBJECTIVE, NEXT_IMAGE, *pullbacks, *scale)
            },
            inputs={name: inputs[name] for name in own},
        )


def _classes(logits: tuple[int | None, ...]) -> int:
    """
    Raises:
        BackendError: they are none.
    """
    if len(logits) != 2 or logits[1] is None:
        raise BackendError(
            f"the graph declares '{LOGITS}' as {_text(logits)}, not as a known number of classes; "
            "export it again"
        )
    return logits[1]


def _check_values(values: Values, inputs: Mapping[str, Port]) -> None:
    """
    Raises:
        BackendError: the metadata say other sizes than the graph.
    """
    for name, one in values.inputs.items():
        said = tuple(n if isinstance(n, int) else None for n in one.sizes)
        if inputs[name].shape != said:
            raise BackendError(
                f"the file's metadata say that '{name}' is {_text(said)}, its graph "
                f"{_text(inputs[name].shape)}; export it again"
            )
    if not next(iter(values.inputs.values())).batched:
        raise BackendError("the file's metadata name no input with a batch; export it again")


def _check_image(metadata: Metadata, image: tuple[int | None, ...]) -> None:
    """
    Raises:
        BackendError: the graph declares no image, or one of another size than the metadata.
    """
    if len(image) != 4:
        raise BackendError(
            f"the graph declares '{IMAGE}' as {_text(image)}, not as a batch of images; "
            "export it again"
        )
    said, is_ = metadata.preprocessing.image_shape, image[1:]
    if any(is_[i] not in (None, said[i]) for i in range(3)):
        raise BackendError(
            f"the file's metadata say that an image is {_text(said)}, its graph {_text(is_)}; "
            "export it again"
        )


def _check_pixels(pixels: Pixels, image: Port) -> None:
    """
    Raises:
        BackendError: the graph declares another image than the metadata.
    """
    said, is_ = pixels.shape, image.shape[1:]
    fits = len(is_) == len(said) and all(
        a is None or b in (a, None) for a, b in zip(said, is_, strict=True)
    )
    if not fits or image.dtype != "uint8":
        raise BackendError(
            f"the file's metadata say that '{IMAGE}' is uint8 {_text((None, *said))}, its graph "
            f"{image.dtype} {_text(image.shape)}; export it again"
        )


def _check_geometry(metadata: Metadata, pullback: tuple[int | None, ...]) -> None:
    """
    Raises:
        BackendError: the pullback has other sides than the metadata say.
    """
    pre, whole = metadata.preprocessing, metadata.pixels.geometry == PHOTOGRAPH
    sides = pullback[-3:-1] if pre.layout == "NHWC" else pullback[-2:]
    if sides != ((None, None) if whole or pre.any_size else (pre.height, pre.width)):
        raise BackendError(
            f"the file's metadata say that '{PULLBACK}' has the size of the "
            f"{metadata.pixels.geometry}, its graph {_text(pullback)}; export it again"
        )


def _check_batch(shape: tuple[int | None, ...]) -> None:
    """
    Raises:
        BackendError: the graph takes so many images at a time that no memory holds them.
    """
    if shape[0] is not None and not 1 <= shape[0] <= _LARGEST_BATCH:
        raise BackendError(
            f"the graph declares batches of {shape[0]:,} images, of at most {_LARGEST_BATCH:,}; "
            "export it again"
        )


def _check_labels(metadata: Metadata, classes: int) -> None:
    """
    Raises:
        BackendError: the metadata name other classes than the graph has.
    """
    if metadata.labels and len(metadata.labels) != classes:
        raise BackendError(
            f"the file's metadata name {len(metadata.labels)} classes, its graph has {classes}; "
            "export it again"
        )


def _text(shape: Iterable[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _require(names: Iterable[str], present: Iterable[str], kind: str) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise BackendError(
            f"the graph has onnxplain metadata but no {kind} '{missing[0]}'; export it again"
        )
