"""Files of one network: that takes its own input, and those that take photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .files import explain_graph

KINDS = {
    "plain": {},
    "rgb": {"preprocess": True},
    "nv12": {"preprocess": True, "pixels": "nv12"},
    "bgr": {"preprocess": True, "pixels": "bgr"},
    "whole": {"preprocess": True, "geometry": "photograph", "quantise_output": "int8"},
    "targets": {"preprocess": True, "multi_target": True},
}


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → file, of `KINDS`."""
    return {
        name: explain_graph(tmp_path_factory.mktemp(name), **options)
        for name, options in KINDS.items()
    }
