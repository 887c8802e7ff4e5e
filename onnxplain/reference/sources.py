"""The network that an explain graph was exported from, as what can be run beside it."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxplain.errors import SourceError, UnfinishedError
from onnxplain.export.sources.from_programs import load_archive
from onnxplain.export.sources.from_transformers import load_folder
from onnxplain.export.sources.source import torch_network
from onnxplain.export.sources.tracing import blank_image, logits_of, outputs_of, twin
from onnxplain.networks import FILES
from onnxplain.reference.forward import all_nodes
from onnxplain.reference.products import factors_of
from onnxplain.reference.running import run, session_options
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.sessions.onnx_runtime.options import inference_session

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]


PLAIN = ("gradient", "input-x-gradient")
"""The methods that replace no derivative."""

BY_MODULE = (
    *("semantic", "lrp-zplus", "lrp-epsilon", "epsilon-plus", "attn-lrp", "cp-lrp"),
    *("lrp-epsilon-plus", "lrp-epsilon-plus-flat", "lrp-epsilon-gamma-box"),
    *("lrp-epsilon-alpha2-beta1", "lrp-epsilon-alpha2-beta1-flat"),
)
"""The methods that know by its module that several operations are a normalisation or a GELU."""


FLOAT32, ROUNDED = 1e-4, 1e-2
"""The relative errors up to which rounding may account for it: in float32; in half precision or
whole numbers."""

OF_ONE = 1e-6
"""The error of probabilities: near 0 a sigmoid is as wrong as near 1 (ONNX Runtime's by 1.5e-7)."""

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def is_onnx(source: Any) -> bool:
    """Whether a source is an ONNX file, as every file is that its name calls nothing else."""
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source)
    return path.suffix == ".onnx" or (path.is_file() and path.suffix not in FILES)


def module_of(source: Any, weights: str, size: tuple[int, int], method: str) -> nn.Module | None:
    """The PyTorch module that a source is, in evaluation mode.

    Args:
        source: as `onnxplain.export` takes it, but no `.onnx` file.
        weights: for a name.
        size: height and width of the image.

    Returns:
        None for TorchScript, which hides its operations, where the method replaces some; and for a
        `torch.export` program where it must be known in which module an operation stands.

    Raises:
        SourceError: it cannot be read, or a package is missing.
    """
    network = source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            network = load_folder(path)[0]
        elif path.suffix in FILES:
            network = load_archive(path)
        else:
            network = torch_network(str(source), weights, size).module
    import torch

    from onnxplain.reference.pytorch.programs import Program

    if isinstance(network, torch.export.ExportedProgram):
        return Program(network) if set(factors_of(method)).isdisjoint(BY_MODULE) else None
    if isinstance(network, torch.jit.ScriptModule) and not set(PLAIN).issuperset(
        factors_of(method)
    ):
        return None
    if not isinstance(network, torch.nn.Module):
        raise SourceError(f"a source is a name, a file or a PyTorch network, not {network!r}")
    return network.eval()


def scores_of_pytorch(network: Any, images: Array) -> Array:
    """What a PyTorch network, in evaluation mode, says of images: its logits [N, classes].

    Args:
        network: as `onnxplain.export` takes it, but neither a file nor a name. It is left as it is.
        images: float32 [N, C, H, W].

    Raises:
        Exception: of any kind, where the network does not take them.
    """
    import torch

    given = torch.from_numpy(images).to(blank_image(network, 1, (1, 1)))
    with torch.no_grad():
        logits = logits_of(_evaluated(network)(given))
    return logits.float().cpu().numpy().reshape(len(images), -1)


def outputs_of_pytorch(network: Any, images: Array) -> dict[str, Array]:
    """All tensors that a PyTorch network makes of images, by name; of the same arguments.

    Raises:
        Exception: of any kind, where the network does not take them.
    """
    import torch

    given = torch.from_numpy(images).to(blank_image(network, 1, (1, 1)))
    with torch.no_grad():
        return _as_arrays(_evaluated(network)(given))


def run_onnx(path: str | os.PathLike[str], given: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs that an ONNX file makes of its inputs by ONNX Runtime, both by name.

    Raises:
        Exception: of any kind, where it does not run.
    """
    session = inference_session(Path(path), "float32", session_options(), ["CPUExecutionProvider"])
    half = {i.name for i in session.get_inputs() if i.type == "tensor(float16)"}
    feeds = {n: x.astype(np.float16) if n in half else x for n, x in given.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, run(session, names, feeds), strict=True))


def run_pytorch(network: Any, given: Mapping[str, Array]) -> dict[str, Array]:
    """All tensors that a PyTorch network makes of its arguments, by name.

    Raises:
        Exception: of any kind, where the network does not take them.
    """
    import torch

    own = blank_image(network, 1, (1, 1))
    tensors = {n: torch.from_numpy(x).to(own.device) for n, x in given.items()}
    tensors = {n: x.to(own.dtype) if x.is_floating_point() else x for n, x in tensors.items()}
    with torch.no_grad():
        return _as_arrays(_evaluated(network)(**tensors))


def _as_arrays(output: Any) -> dict[str, Array]:
    """Floats in float32, and all else as it is."""
    found = outputs_of(output, whole=True).items()
    return {n: (y.float() if y.is_floating_point() else y).cpu().numpy() for n, y in found}


def outputs_of_onnx(
    path: str | os.PathLike[str], images: Array, input: str | None = None
) -> dict[str, Array]:
    """All outputs that an ONNX file makes of images by ONNX Runtime, by name.

    Raises:
        Exception: of any kind, where it cannot be run on these images alone.
    """
    session = inference_session(Path(path), "float32", session_options(), ["CPUExecutionProvider"])
    (image,) = [i for i in session.get_inputs() if input in (None, i.name)]
    dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(image.type)
    names = [output.name for output in session.get_outputs()]
    found = run(session, names, {image.name: images.astype(dtype or np.float32)})
    return dict(zip(names, found, strict=True))


def _evaluated(network: Any) -> Any:
    import torch

    if isinstance(network, torch.export.ExportedProgram):
        return network.module()
    if isinstance(network, torch.jit.ScriptModule):
        return copy.deepcopy(network).eval() if network.training else network
    return twin(network)


def is_float32(network: Any) -> bool:
    """Whether the first floats of a PyTorch network are."""
    return str(blank_image(network, 1, (1, 1)).dtype) == "torch.float32"


def scores_of_onnx(
    path: str | os.PathLike[str], images: Array, classes: int, input: str | None = None
) -> list[Array]:
    """What an ONNX file itself says of images, by ONNX Runtime: each output [N, classes] that it
    has, as logits or probabilities.

    Args:
        images: float32, in the file's own layout.
        input: the image input, where there are several.

    Returns:
        None at all where the file cannot be run on the images alone.

    Raises:
        UnfinishedError: it does not end.
    """
    try:
        options, providers = session_options(), ["CPUExecutionProvider"]
        session = inference_session(Path(path), "float32", options, providers)
        (image,) = [i for i in session.get_inputs() if input in (None, i.name)]
        dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(image.type)
        given = images.astype(dtype or np.float32)
        batch = image.shape[0] if isinstance(image.shape[0], int) else len(given)
        starts = range(0, len(given), batch)
        parts = [filled(given[start : start + batch], batch) for start in starts]
        runs = [run(session, None, {image.name: part}) for part in parts]
    except UnfinishedError:
        raise
    except Exception:  # whatever a file that is not self-contained makes ONNX Runtime raise
        return []
    outputs = [np.concatenate(ys) for ys in zip(*runs, strict=True) if ys[0].ndim]
    count = len(parts) * batch
    return [y.reshape(count, -1)[: len(images)] for y in outputs if y.size == count * classes]


def tolerance(source: Any) -> float:
    """The relative error that a network's own rounding may account for."""
    if not is_onnx(source):
        return FLOAT32 if is_float32(source) else ROUNDED
    graph = onnx.load(source, load_external_data=False).graph
    half = any(tensor.data_type in _HALF for tensor in graph.initializer)
    half |= any(port.type.tensor_type.elem_type in _HALF for port in graph.input)
    nodes = list(all_nodes(graph))
    casts = (a.i for node in nodes if node.op_type == "Cast" for a in node.attribute)
    half |= any(to in _HALF for to in casts)
    whole = any("quantize" in node.op_type.lower() for node in nodes)
    whole |= any("Integer" in node.op_type for node in nodes)
    whole |= any("QLinear" in node.op_type for node in nodes)
    return ROUNDED if half or whole else FLOAT32
