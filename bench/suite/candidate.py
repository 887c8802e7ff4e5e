"""What computes something for a job's images, and is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxplain.bench.suite.job import Job

Run: TypeAlias = Callable[[], Any]
"""Computes everything anew, and waits for it; returns the pullback if it is one, else anything."""


@dataclass(frozen=True)
class Candidate:
    """A candidate that is not built yet: only what is built takes memory.

    Attributes:
        name: what runs it, "openvino bfloat16".
        kind: what it computes: "forward"; "explain", the excitation pullback; "explain K=5", five
            of them per image; "pixels", a peer's explanation of another kind at the image's
            resolution; "map", an activation map.
        by: "onnxplain", "PyTorch", or the peer's name.
        build: makes it ready to run.
    """

    name: str
    kind: str
    by: str
    build: Callable[[Job], Run]
