"""Explaining tensors of other packages where they lie, without a visit to the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.estimator import CONVERGENCE_DELTA
from onnxplain.contract.explain import IMAGE, LOGITS, ORIGIN, PULLBACK, TARGET
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.errors import InputError
from onnxplain.printable import Brief
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.batches import check_size
from onnxplain.runtime.inputs.frames import size_of_frame
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.inputs.tensors import as_numpy, dtype_name, is_tensor, like, on_host
from onnxplain.runtime.outputs import in_floats
from onnxplain.runtime.sessions import Backend
from onnxplain.runtime.signature import Signature


class Tensor(Protocol):
    """An array of another package than numpy, with one of the two interfaces for sharing."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class TensorExplanation(Brief):
    """What the graph gave for a tensor, in tensors of its package, on its device.

    Attributes:
        logits: [N, classes]; None where the network is no classifier.
        pullback: of the images' shape and layout; [N,K,...] for a graph of several targets.
        targets: as they were asked for, int64 [N] or [N,K]: negative ones count from the top of
            the ranking of `logits`. On the host, unless they were a tensor of the device.
        outputs: what the network puts out, by name, and what its objective tells beside itself.
        objective: the scalar of each that is explained, [N] or [N,K]; None of a classifier.
    """

    logits: Any
    pullback: Any
    targets: Any
    outputs: Mapping[str, Any] = field(default_factory=dict)
    objective: Any = None

    @property
    def convergence_delta(self) -> Any:
        """As of `Explanation`."""
        return self.outputs.get(CONVERGENCE_DELTA)

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError: what it lacks, `Explanation` may have."""
        message = f"a TensorExplanation has no attribute {name!r}"
        if hasattr(Explanation, name):
            message += (
                ", as it holds tensors where they lie; the explanation of a list has: "
                "explainer(list(images))"
            )
        raise AttributeError(message)


def explain_tensor(
    backend: Backend,
    images: Any,
    targets: Any,
    scalars: dict[str, NDArray[Any]],
    given: Mapping[str, Any] = MappingProxyType({}),
) -> TensorExplanation:
    """Explain a tensor in one run of the graph.

    Args:
        backend: what runs it.
        images: as the graph takes them, N ≥ 1: normalised, [N,C,H,W] or [N,H,W,C]; or uint8 pixels
            (`contract.pixels`).
        targets: as for `Explainer.__call__`, or a tensor of indices.
        scalars: the graph's inputs that are one number, by name.
        given: what its objective takes besides, as for `Explainer.__call__`.

    Raises:
        InputError: a shape, dtype or target that cannot be used.
        BackendError: the tensor lies on another device than the graph, or the runtime failed.
    """
    signature = backend.signature
    _check(signature, images)
    inputs: dict[str, Any] = {IMAGE: images, **_of_objective(signature, given, len(images))}
    if signature.has_target:
        targets = inputs[TARGET] = _targets(signature, targets, len(images))
    elif targets is not None:
        target_input(signature, targets, len(images))  # which refuses them
    inputs |= scalars
    if signature.step:
        inputs[ORIGIN] = images
    if on_host(images):
        host = {n: x if isinstance(x, np.ndarray) else _on_host(x) for n, x in inputs.items()}
        outputs = backend.run(host)
    else:
        outputs = backend.run_on_device(inputs)
    found = in_floats({name: like(array, images) for name, array in outputs.items()})
    return TensorExplanation(
        found[LOGITS] if signature.metadata.objective.is_class else None,
        found[PULLBACK],
        targets,
        {name: found[name] for name in signature.outputs},
        found.get(OBJECTIVE),
    )


def _targets(signature: Signature, targets: Any, images: int) -> Any:
    if is_tensor(targets) and on_host(targets):
        targets = as_numpy(targets)
    if is_tensor(targets):
        return targets
    return target_input(signature, targets, images)


def _of_objective(signature: Signature, given: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Its inputs, those on a device as they are.

    Raises:
        InputError: as `as_inputs`; of a tensor on a device, another shape than [N, …].
    """
    tensors = {n: x for n, x in given.items() if is_tensor(x) and not on_host(x)}
    declared = signature.metadata.objective.inputs
    for name, tensor in tensors.items():
        shape = [images, *declared[name].shape] if name in declared else list(tensor.shape)
        if list(tensor.shape) != shape:
            raise InputError(
                f"{name!r} of {images} images on a device has the shape {shape}, not "
                f"{list(tensor.shape)}"
            )
    host = {n: _on_host(x) if is_tensor(x) else x for n, x in given.items() if n not in tensors}
    return {**as_inputs(signature, {**host, **tensors}, images, unread=tensors), **tensors}


def _on_host(tensor: Any) -> NDArray[Any]:
    """
    Raises:
        InputError: a tensor that cannot be read.
    """
    try:
        return as_numpy(tensor)
    except (BufferError, RuntimeError, TypeError) as error:
        raise InputError(f"the tensor cannot be read: {error}") from error


def _check(signature: Signature, images: Any) -> None:
    pixels, shape = signature.metadata.pixels, list(images.shape)
    pre = signature.metadata.preprocessing
    expected: list[Any] = list(pixels.shape or pre.image_shape)
    if pre.any_size and not pixels:
        if len(shape) != 4 or not pre.takes(tuple(shape[1:])) or not shape[0]:
            sides = f", its sides {pre.described_sides}" if pre.described_sides else ""
            raise InputError(
                f"a tensor of images has the shape [N, {pre.described_shape}]{sides}, not {shape}"
            )
        expected = shape[1:]
    named = ["any" if size is None else size for size in expected]
    fits = len(shape) == 1 + len(expected) and all(
        size and wanted in (None, size) for size, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits or not shape[0]:
        raise InputError(f"a tensor of images has the shape {['N', *named]}, not {shape}")
    if pixels:
        check_size(size_of_frame(shape, pixels), pre)
    if signature.batch and shape[0] != signature.batch:
        raise InputError(
            f"this graph was exported for batches of {signature.batch}, not of {shape[0]}"
        )
    dtype = "uint8" if pixels else signature.dtype.name
    if dtype_name(images) != dtype:
        what = "a photograph's pixels" if pixels else "normalised"
        raise InputError(f"a tensor of images holds {dtype}, {what}, not {dtype_name(images)}")
