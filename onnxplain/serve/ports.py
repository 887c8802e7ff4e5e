"""An explain graph's inputs and outputs, for those that describe them: Triton and KServe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET, Metadata, Preprocessing
from onnxplain.contract.objective import INDEX, OBJECTIVE
from onnxplain.contract.pixels import PHOTOGRAPH, PULLBACK_SCALE
from onnxplain.runtime.signature import Signature


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: in the file.
        dtype: numpy's name of it.
        sizes: without the batch, -1 where they are open.
        axis: which one the batch is besides; None where there is none, or it is not known.
    """

    name: str
    dtype: str
    sizes: tuple[int, ...] = ()
    axis: int | None = 0

    def shape(self, batch: int) -> list[int]:
        """All sizes, with so many images."""
        if self.axis is None:
            return [*self.sizes]
        return [*self.sizes[: self.axis], batch, *self.sizes[self.axis :]]


def image_sizes(metadata: Metadata, channels: int) -> tuple[int, ...]:
    """One image as the network takes it, of so many channels; -1 of sides that are open."""
    pre = metadata.preprocessing
    return _open(pre, channels) if pre.any_size else pre.shape(channels)


def input_ports(signature: Signature) -> list[Port]:
    """The image and what the objective takes, [N, …] each."""
    metadata, floats = signature.metadata, signature.dtype.name
    if metadata.pixels:
        ports = [Port(IMAGE, "uint8", tuple(size or -1 for size in metadata.pixels.shape))]
    else:
        ports = [Port(IMAGE, floats, image_sizes(metadata, metadata.preprocessing.channels))]
    if signature.has_target:
        ports.append(Port(TARGET, "int64", _targets(signature)))
    return ports + [
        Port(name, "int64" if one.kind == INDEX else floats, one.shape)
        for name, one in metadata.objective.inputs.items()
        if name != TARGET
    ]


def output_ports(signature: Signature, quantised: bool = False) -> list[Port]:
    """The network's own, the objective where it is no classifier, and the pullback.

    Args:
        quantised: whether that is as the file puts it out, with its scale where it has one; else it
            is floats.
    """
    metadata, floats = signature.metadata, signature.dtype.name
    explained, targets, ports = metadata.objective, _targets(signature), []
    for name, own in signature.outputs.items():
        axis = explained.batch_axis(name)
        sizes = [-1 if size is None else size for size in own.shape]
        if axis is not None:
            del sizes[axis]
        ports.append(Port(name, own.dtype, tuple(sizes), axis))
    if not explained.is_class:
        ports.append(Port(OBJECTIVE, floats, targets))
    shape = (*targets, *_pullback_shape(metadata))
    if quantised and metadata.pixels.quantised:
        scale = Port(PULLBACK_SCALE, "float32", targets)
        return [*ports, Port(PULLBACK, metadata.pixels.quantised, shape), scale]
    return [*ports, Port(PULLBACK, floats, shape)]


def _pullback_shape(metadata: Metadata) -> tuple[int, ...]:
    """That of one image and target, open where it is the photograph's."""
    channels = 1 if metadata.is_map else metadata.preprocessing.channels
    if metadata.pixels.geometry == PHOTOGRAPH:
        return _open(metadata.preprocessing, channels)
    return image_sizes(metadata, channels)


def _open(pre: Preprocessing, channels: int) -> tuple[int, ...]:
    return replace(pre, height=-1, width=-1).shape(channels)


def _targets(signature: Signature) -> tuple[int, ...]:
    return (-1,) if signature.multi_target else ()
