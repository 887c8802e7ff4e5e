"""What an engine is built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.tensorrt.package import Package

PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "int8")

AMPERE_AND_LATER = (80, 86, 89, 120)
"""What `tensorrt_rtx` builds for when not told otherwise (its manual, "CPU-Only AOT")."""

_PORTABLE = (80, 86, 87, 89, 90, 100, 103, 110, 120, 121)


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built for.

    Attributes:
        sms: compute capabilities, 89 for 8.9.
        gpu: the model of GPU if it must be that one, else empty.
        precision: one of `PRECISIONS`.
        refittable: whether the weights can be replaced.
        portable: of `tensorrt`: for any GPU from Ampere on.
    """

    sms: tuple[int, ...]
    gpu: str
    precision: str
    refittable: bool
    portable: bool

    @classmethod
    def of(
        cls,
        package: Package,
        sm: Sequence[int] | None,
        precision: str,
        refittable: bool,
        portable: bool,
    ) -> BuildOptions:
        """What the package can build for, of what is asked for.

        Raises:
            BackendError: an unknown precision; no GPU where one is needed; one that the package
                does not build for.
        """
        precision = precision_named(precision)
        sms, name = _hardware(package, sm, refittable, portable)
        return cls(sms, name, precision, refittable, portable)


def _hardware(
    package: Package, sm: Sequence[int] | None, refittable: bool, portable: bool
) -> tuple[tuple[int, ...], str]:
    """The compute capabilities to build for, and the model of GPU if it must be that one."""
    if package.ahead_of_time and portable:
        raise BackendError(
            "an engine of TensorRT-RTX runs on every GPU whose SM it was built for; name them "
            "instead of asking for a portable one"
        )
    if package.ahead_of_time and not refittable:
        sms = tuple(sorted(set(AMPERE_AND_LATER if sm is None else sm)))
        for wanted in sms:
            if wanted not in package.sms:
                raise BackendError(_no_such_sm(package, wanted))
        return sms, ""
    what = "a refittable engine" if refittable else "an engine of TensorRT"
    try:
        here = gpu()
    except BackendError as error:
        raise BackendError(f"{what} is built on the GPU that is to run it; {error}") from None
    if sm is not None and list(sm) != [here.sm]:
        raise BackendError(
            f"{what} is built on the GPU that is to run it ({here.name}, SM {here.sm}), not for SM "
            f"{', '.join(map(str, sm))}; provider='tensorrt-rtx' builds others ahead of time"
        )
    if package.ahead_of_time:
        if here.sm not in package.sms:
            raise BackendError(_no_such_sm(package, here.sm))
        return (here.sm,), ""
    return (_PORTABLE, "") if portable else ((here.sm,), here.name)


def _no_such_sm(package: Package, wanted: int) -> str:
    known = ", ".join(map(str, package.sms))
    if wanted in (90, 100, 103):
        what = "Hopper" if wanted == 90 else "this Blackwell data-centre GPU"
        return (
            f"TensorRT-RTX is for RTX GPUs and does not build for SM {wanted} ({what}); it builds "
            f"for {known}. On such a GPU use provider='tensorrt' or provider='cuda'"
        )
    return f"{package.title} does not build for SM {wanted}; it builds for {known}"
