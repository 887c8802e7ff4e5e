"""The two packages that hold NVIDIA's compiler; they have one API.

`tensorrt` builds for the GPU it runs on. `tensorrt_rtx` builds on any machine, without a GPU too,
for every GPU named, and each of those compiles the rest when it first runs the engine.
"""

from __future__ import annotations

import functools
import importlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.extras import install

PROVIDERS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The name of the provider → that of the package."""

_LAST_WORDS = 8


@dataclass(frozen=True)
class Package:
    """One of the two, imported.

    Attributes:
        provider: "tensorrt" or "tensorrt-rtx".
        trt: the module.
        logger: what the compiler said of late; it registers one for the process, so there is one.
    """

    provider: str
    trt: Any
    logger: Any

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def title(self) -> str:
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for other GPUs than the one it runs on."""
        return hasattr(self.trt, "ComputeCapability")

    @property
    def sms(self) -> tuple[int, ...]:
        """The compute capabilities that it can be told to build for, 89 for 8.9."""
        if not self.ahead_of_time:
            return ()
        names = self.trt.ComputeCapability.__members__
        return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))

    def said(self) -> str:
        """What went wrong, in the package's words, since it was last asked."""
        words = list(dict.fromkeys(self.logger.words))
        self.logger.words.clear()
        return " · ".join(words) or "it gives no reason"


@functools.cache
def load_package(provider: str) -> Package:
    """Import the package of a provider.

    Raises:
        BackendError: it is not installed, or its libraries cannot be loaded.
    """
    name = PROVIDERS[provider]
    try:
        trt = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise BackendError(
                f"the package {name} is broken: {error}; install it again"
            ) from error
        raise BackendError(
            f"the provider {provider} needs the package {name}: {install(provider)}"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(f"the package {name} cannot be loaded: {error}") from error

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.words: deque[str] = deque(maxlen=_LAST_WORDS)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.words.append(" ".join(message.split()))

    return Package(provider, trt, Logger())
