"""Explaining tensors of other packages where they lie, without a visit to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxplain.contract.explain import IMAGE, LOGITS, ORIGIN, PULLBACK, TARGET
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.targets import as_indices
from onnxplain.runtime.inputs.tensors import as_numpy, dtype_name, is_tensor, like, on_host

if TYPE_CHECKING:
    from onnxplain.runtime.explainer import Explainer


class Tensor(Protocol):
    """An array of another package than numpy, with one of the two interfaces for sharing."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class TensorExplanation:
    """What the graph gave for a tensor, in tensors of its package, on its device.

    Attributes:
        logits: [N, classes].
        pullback: of the images' shape and layout; [N,K,...] for a graph of several targets.
        targets: as they were asked for, int64 [N] or [N,K]: negative ones count from the top of
            the ranking of `logits`. On the host, unless they were a tensor of the device.
    """

    logits: Any
    pullback: Any
    targets: Any


def explain_tensor(
    explainer: Explainer,
    images: Any,
    targets: Any,
    temperature: float | None,
    batch_size: int | None,
) -> TensorExplanation:
    """What `Explainer.__call__` does for a tensor: one run of the graph.

    Raises:
        InputError: a shape, dtype, target or temperature that cannot be used, or a batch size.
        BackendError: the tensor lies on another device than the graph, or the runtime failed.
    """
    signature = explainer.backend.signature
    _check(explainer, images)
    if batch_size is not None:
        raise InputError("a tensor is explained in one run; split it for smaller batches")
    if is_tensor(targets) and on_host(targets):
        targets = as_numpy(targets)
    if not is_tensor(targets):
        targets = as_indices(
            targets,
            len(images),
            signature.classes,
            explainer.labels,
            signature.multi_target,
        )
    inputs: dict[str, Any] = {IMAGE: images, TARGET: targets}
    if signature.step:
        inputs[ORIGIN] = images
    inputs |= explainer.constant_inputs(temperature)
    if on_host(images):
        try:
            host = {
                name: tensor if isinstance(tensor, np.ndarray) else as_numpy(tensor)
                for name, tensor in inputs.items()
            }
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(f"the tensor cannot be read: {error}") from error
        outputs = explainer.backend.run(host)
    else:
        outputs = explainer.backend.run_on_device(inputs)
    return TensorExplanation(
        like(outputs[LOGITS], images), like(outputs[PULLBACK], images), targets
    )


def _check(explainer: Explainer, images: Any) -> None:
    pre, signature = explainer.metadata.preprocessing, explainer.backend.signature
    size = [pre.channels, pre.height, pre.width]
    size = [*size[1:], size[0]] if pre.layout == "NHWC" else size
    shape = list(images.shape)
    if len(shape) != 4 or shape[1:] != size or not shape[0]:
        raise InputError(f"a tensor of images has the shape {['N', *size]}, not {shape}")
    if signature.batch and shape[0] != signature.batch:
        raise InputError(
            f"this graph was exported for batches of {signature.batch}, not of {shape[0]}"
        )
    if dtype_name(images) != signature.dtype.name:
        raise InputError(
            f"a tensor of images holds {signature.dtype.name}, normalised, not {dtype_name(images)}"
        )
