"""The installed versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(distribution: str) -> str:
    """That of an installed distribution; empty if it is not."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


__version__ = installed_version("onnxplain") or "0.0.0"  # of a source tree that is not installed
