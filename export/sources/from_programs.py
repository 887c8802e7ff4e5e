"""Networks that PyTorch has already traced: TorchScript and `torch.export` programs."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxplain.errors import SourceError, UntrustedError
from onnxplain.export.canonical.opsets import OPSET
from onnxplain.export.sources.tracing import (
    blank_image,
    import_torch,
    program_to_onnx,
    quiet,
    root_cause,
)
from onnxplain.files import scratch
from onnxplain.reading import regular, trusted

if TYPE_CHECKING:
    import torch


def load_archive(path: Path) -> Any:
    """The TorchScript module or the `ExportedProgram` in a file that PyTorch wrote.

    Neither is data: TorchScript is a language whose operators write files, and of a program
    PyTorch unpickles objects, imports modules and evaluates Python.

    Raises:
        SourceError: nobody trusts it (`onnxplain.reading.trusted`), PyTorch is not installed, can't
            read the file, or it holds a checkpoint.
    """
    torch = import_torch()
    try:
        regular(path)
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        # Each kind of archive is known by a file that the others lack.
        if any(name.endswith("/constants.pkl") for name in names):
            _check_trusted(path, "TorchScript", "torch.jit.load")
            return torch.jit.load(path, map_location="cpu")
        if any("/models/" in name and name.endswith(".json") for name in names):
            _check_trusted(path, "a torch.export program", "torch.export.load")
            with quiet():
                return torch.export.load(path)
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


def _check_trusted(path: Path, kind: str, loader: str) -> None:
    if not trusted.get():
        raise UntrustedError(
            f"{path} is not loaded: it is {kind}, and such a file can run any code. If you trust "
            "whoever made it: onnxplain --trust export …, or another command; in Python, load it "
            f"with {loader} and pass what that returns"
        )


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
