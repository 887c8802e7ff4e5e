"""Autoencoders and classifiers as ONNX graphs, with operators that every runtime has."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxplain.contract.explain import IMAGE, LOGITS
from onnxplain.contract.signals import RECONSTRUCTION, SignalMetadata
from onnxplain.errors import SourceError
from onnxplain.export.finish import checked_proto, clean
from onnxplain.export.sources.from_programs import script_to_onnx
from onnxplain.export.sources.spelling import spelled
from onnxplain.export.sources.tracing import program_to_onnx, quiet, root_cause
from onnxplain.files import replacing
from onnxplain.signal.autoencoder import Autoencoder


class _Seen(nn.Module):
    """Pixels → their reconstruction, and the classifier's logits for that."""

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.classifier = autoencoder, classifier

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction = self.autoencoder(pixels)
        return reconstruction, self.classifier(reconstruction)


def export_autoencoder(
    autoencoder: Autoencoder,
    path: Path,
    classifier: nn.Module | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write an autoencoder, alone or followed by a classifier.

    The graph takes `image`, float32 [N, C, size, size], pixels in [0, 1]. It gives
    `reconstruction`, of the same shape and not clipped, and with a classifier its `logits`
    [N, classes] for the reconstruction. N is open. The operators are standard ones of opset 20,
    without `MaxUnpool` (see `onnxplain.signal.unpooling`).

    Args:
        autoencoder: left as it was.
        path: the file to write, completely or not at all.
        classifier: pixels in [0, 1] → logits, as from `open_classifier`.
        classes: their names.

    Raises:
        SourceError: PyTorch cannot trace the classifier.
        InputError: the path cannot be written.
    """
    twin = copy.deepcopy(autoencoder).cpu().eval()
    twin.portable = True
    network: nn.Module = twin if classifier is None else _Seen(twin, classifier)
    outputs = [RECONSTRUCTION] if classifier is None else [RECONSTRUCTION, LOGITS]
    design = autoencoder.design
    _write(network, path, (design.channels, design.size), outputs, classes)


def export_classifier(
    classifier: nn.Module, path: Path, channels: int, size: int, classes: Sequence[str]
) -> None:
    """Write a classifier alone: `image`, float32 [N, C, size, size] in [0, 1] → `logits`.

    Raises:
        SourceError: PyTorch cannot trace it.
        InputError: the path cannot be written.
    """
    _write(classifier, path, (channels, size), [LOGITS], classes)


def require_exportable(classifier: nn.Module, channels: int, size: int) -> None:
    """Check that `export_classifier` can trace it.

    Raises:
        SourceError: PyTorch cannot trace it.
    """
    _traced(classifier, (channels, size))


def _write(
    network: nn.Module,
    path: Path,
    picture: tuple[int, int],
    outputs: Sequence[str],
    classes: Sequence[str],
) -> None:
    model = _traced(network, picture)
    clean(model)
    _rename(model.graph.inputs, [IMAGE])
    _rename(model.graph.outputs, outputs)
    channels, size = picture
    model.metadata_props.update(SignalMetadata(channels, size, tuple(classes)).to_props())
    data = checked_proto(model).SerializeToString()
    with replacing(path) as beside:
        beside.write_bytes(data)


def _traced(network: nn.Module, picture: tuple[int, int]) -> ir.Model:
    channels, size = picture
    # Two pictures: torch.export would take a batch of one for a constant.
    example = torch.zeros(2, channels, size, size)
    batch = torch.export.Dim("batch")
    with quiet(), spelled():
        if any(isinstance(part, torch.jit.ScriptModule) for part in network.modules()):
            # torch.export takes no TorchScript, nor a module that contains some.
            trace: Any = torch.jit.trace  # it has no types
            whole = trace(network.eval(), example, check_trace=False)
            return script_to_onnx(whole, None, example)
        try:
            program = torch.export.export(
                network.eval(), (example,), dynamic_shapes=({0: batch},), strict=False
            )
            return program_to_onnx(program)
        except Exception as error:
            raise SourceError(f"PyTorch could not export it: {root_cause(error)}") from error


def _rename(values: Sequence[ir.Value], names: Sequence[str]) -> None:
    for value, name in zip(values, names, strict=True):
        value.name = name
