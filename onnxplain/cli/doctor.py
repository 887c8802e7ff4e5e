"""The command `onnxplain doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import out, say
from onnxplain.errors import BackendError
from onnxplain.machine import saturates
from onnxplain.version import installed_version

_WHY = {
    "tensorrt": "the fastest on a GPU",
    "cuda": "the fastest on a GPU without TensorRT",
    "openvino": "the fastest on a processor in half precision",
    "cpu": "ONNX Runtime, which is always here and is what the others are checked against",
}
_CHECKS = (
    "When auto loads a graph, it checks what it takes against ONNX Runtime on the CPU, and takes "
    "the next if that is wrong. --precision auto measures all of them on your images."
)


@command
def doctor() -> None:
    """Show what can run explain graphs here, what `auto` takes and why, and what to install.

    \b
        onnxplain doctor
    """
    from onnxplain.contract.precision import PRECISIONS
    from onnxplain.runtime.sessions import PROVIDERS, preferred, usable
    from onnxplain.runtime.sessions.onnx_runtime.kernels import described

    table = Table("provider", "installed", "computes in", "", title="What runs explain graphs")
    missing: dict[str, list[str]] = {}
    for name, provider in PROVIDERS.items():
        installed = [f"{package} {installed_version(package)}" for package in provider.packages]
        reason = provider.missing()
        if reason is not None:
            missing.setdefault(reason, []).append(name)
        table.add_row(
            name,
            "\n".join(text for text in installed if not text.endswith(" ")) or "–",
            ", ".join(usable(name)) or "–",
            "[green]ready[/]" if reason is None else "[yellow]not here[/]",
        )
    out.print(table)
    for line in (
        *_devices(),
        *(f"{', '.join(names)}: {reason}" for reason, names in missing.items()),
        *(_auto(precision, preferred) for precision in PRECISIONS),
        f"quantised networks here: in {'float32, for want of VNNI' if saturates() else 'int8'}",
        f"kernels for ONNX Runtime (export --kernels): {described()}",
        _CHECKS,
    ):
        say(line)


def _devices() -> Iterator[str]:
    from onnxplain.runtime.sessions.cuda_driver import gpus
    from onnxplain.runtime.sessions.openvino import options as openvino

    with suppress(BackendError):
        for index, found in enumerate(gpus()):
            yield f"GPU {index}: {found.name}, SM {found.sm}"
    if openvino.missing() is None:
        for device, (name, precisions) in openvino.devices().items():
            yield f"OpenVINO's {device}: {name.strip()}, in {', '.join(precisions)}"


def _auto(precision: str, preferred: Callable[[str], Iterator[str]]) -> str:
    taken = next(preferred(precision), None)
    if taken is None:
        return f"auto in {precision}: takes none; nothing here computes in it"
    return f"auto in {precision}: {taken}, {_WHY.get(taken, 'which alone computes in it here')}"
