"""The machine and the software that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "captum",
    "zennit",
    "grad-cam",
    "lxt",
)


def machine() -> dict[str, object]:
    """What a measurement is kept with; ready for JSON.

    "cpu", "os", "python": text; "cores": logical ones of the machine; "threads": how many of
    them this process may run on;
    "memory_bytes": of the machine, None where the system does not tell; "versions": of the
    packages that are installed.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "memory_bytes": _memory(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def threads() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def saturates() -> bool:
    """Whether sums of products of 8-bit integers overflow here: a processor of Intel's kind that
    has no VNNI adds two of them in 16 bits, and cuts what is too large. So where it is not told."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    info = Path("/proc/cpuinfo")
    return not (info.exists() and _VNNI & set(info.read_text().split()))


_VNNI = {"avx512_vnni", "avx_vnni"}


def load_average() -> float | None:
    """How many processes ran or waited for a core in the last minute; None on Windows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
