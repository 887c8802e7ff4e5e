"""Networks that PyTorch has already traced: TorchScript and `torch.export` programs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.opsets import OPSET
from onnxplain.export.sources.archives import program, script
from onnxplain.export.sources.tracing import (
    blank_image,
    import_torch,
    program_to_onnx,
    quiet,
    root_cause,
)
from onnxplain.files import scratch
from onnxplain.reading import regular

if TYPE_CHECKING:
    import torch


def load_archive(path: Path) -> Any:
    """The TorchScript module or the `ExportedProgram` in a file that PyTorch wrote.

    Raises:
        SourceError: PyTorch is not installed, can't read the file, or it holds a checkpoint.
    """
    torch = import_torch()
    try:
        regular(path)
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        # Each kind of archive is known by a file that the others lack.
        if any(name.endswith("/constants.pkl") for name in names):
            with script(path) as copy:
                return torch.jit.load(copy, map_location="cpu")
        if any("/models/" in name and name.endswith(".json") for name in names):
            with program(path) as copy, _no_pickles(), quiet():  # of what the file holds
                return torch.export.load(copy)
    except SourceError:
        raise
    except Exception as error:
        said = root_cause(error)
        if "warnings above" in said:
            said = "it is damaged, or of another version of PyTorch"
        raise SourceError(f"PyTorch can't read {path}: {said}") from error
    raise SourceError(
        f"{path} is neither TorchScript nor a torch.export program. If it holds weights, name "
        f"their network: onnxplain export NAME --weights {path}. If it holds a pickled module, "
        "load that in Python and pass it to onnxplain.export"
    )


@contextmanager
def _no_pickles() -> Iterator[None]:
    """Meanwhile PyTorch reads tensors alone: a pickle among the weights or inputs is an error.

    `torch.export.load` (2.9 to 2.15) tries again with `weights_only=False`, which runs what a
    pickle says; only this environment variable overrules it.
    """
    with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        yield


def script_to_onnx(
    script: torch.jit.ScriptModule, size: tuple[int, int] | None, example: Any = None
) -> ir.Model:
    """The graph of a TorchScript module; its batch is dynamic unless tracing fixed it.

    Args:
        size: height and width of the input, which TorchScript leaves open.
        example: an input, float [N, C, H, W], instead of the size.

    Raises:
        SourceError: neither is given, or PyTorch can't export it.
    """
    torch = import_torch()
    if example is None:
        if size is None:
            message = "a TorchScript network leaves the size of its input open; fix it with size="
            raise SourceError(message)
        example = blank_image(script, _channels(script), size)
    with scratch() as folder, quiet():
        path = os.path.join(folder, "script.onnx")
        try:
            torch.onnx.export(
                script,
                (example[:1],),
                path,
                dynamo=False,  # torch.export takes no TorchScript
                opset_version=OPSET,
                dynamic_axes={"image": {0: "batch"}},
                input_names=["image"],
            )
        except Exception as error:
            raise SourceError(f"PyTorch could not export it: {root_cause(error)}") from error
        model = ir.external_data.load_to_model(ir.load(path))
    image, shape = model.graph.inputs[0], model.graph.outputs[0].shape
    if shape is not None and isinstance(shape[0], int):
        image.shape = ir.Shape([shape[0], *list(image.shape or ())[1:]])
    return model


def exported_to_onnx(program: torch.export.ExportedProgram, fold_norms: bool = True) -> ir.Model:
    """The graph of a `torch.export` program; its batch is as dynamic as the program's.

    Raises:
        SourceError: PyTorch can't export it.
    """
    try:
        with quiet():
            return program_to_onnx(program, fold_norms)
    except Exception as error:
        raise SourceError(
            f"PyTorch could not export the program: {root_cause(error)}; try the module that it "
            "was made from"
        ) from error


def _channels(script: torch.jit.ScriptModule) -> int:
    """The channels of the input: those of the first convolution, else 3."""
    first = next((weight for weight in script.parameters() if weight.ndim == 4), None)
    return 3 if first is None else int(first.shape[1])
