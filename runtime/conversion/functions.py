"""Explain graphs exported with `--kernels`, with the bodies of their functions written out."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common


def inline_functions(model: ir.Model) -> None:
    """Put its body, in standard operators, in the place of each call of a function, in place."""
    if model.functions:
        common.InlinePass()(model)
        common.ShapeInferencePass()(model)


def inlined(path: Path) -> bytes:
    """An explain graph of a file without functions, as an ONNX file's bytes."""
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    inline_functions(model)
    return ir.to_proto(model).SerializeToString()
