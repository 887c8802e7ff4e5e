"""What OpenVINO has here, and what it can be asked for."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

from onnxplain.errors import BackendError
from onnxplain.extras import install
from onnxplain.runtime.sessions.openvino.core import core

Shapes: TypeAlias = tuple[tuple[str, tuple[int | None, ...]], ...]
"""Of inputs by name, to compile a graph for; None where a size stays open."""

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DEFAULT_DEVICE = "CPU"
HINTS = ("latency", "throughput")

_HINT_OF = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}
_CAPABILITY = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}


def missing() -> str | None:
    """What stands in the way of this provider; None if nothing does."""
    try:
        import openvino as openvino
    except ModuleNotFoundError:
        return f"the provider openvino needs the package openvino: {install('openvino')}"
    except ImportError as error:
        return f"the package openvino cannot be loaded: {error}"
    return None


@functools.cache
def devices() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The devices that OpenVINO finds: name → what it is, and the precisions it computes in."""
    found = {}
    for device in core().available_devices:
        able = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
        precisions = tuple(p for p in PRECISIONS if _CAPABILITY[p] in able)
        found[device] = (str(core().get_property(device, "FULL_DEVICE_NAME")), precisions)
    return found


def full_name(device: str, precision: str) -> str:
    """What a device is.

    Raises:
        BackendError: there is none of that name, or it does not compute in this precision.
    """
    found = devices()
    if device not in found:
        raise BackendError(f"OpenVINO finds no device '{device}' here; it finds {', '.join(found)}")
    name, able = found[device]
    if precision not in able:
        raise BackendError(
            f"OpenVINO does not compute in {precision} on {device} ({name.strip()}); it does in "
            f"{', '.join(able)}"
        )
    return name


def configuration(precision: str, hint: str, threads: int | None) -> dict[str, Any]:
    """OpenVINO's properties for a precision, a hint and a number of threads (None: its own)."""
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINT_OF[precision],
        "PERFORMANCE_HINT": hint.upper(),
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return config
