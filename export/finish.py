"""The end of every export: a graph cleaned, checked and written, as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.errors import SourceError
from onnxplain.export.composites import spell_out
from onnxplain.export.large import NOT_VALID, is_large, written_large
from onnxplain.export.precision import operator_precision
from onnxplain.export.shapes import infer_shapes
from onnxplain.files import replacing


def clean(model: ir.Model) -> None:
    """Standard operators alone; drop what nothing needs, share what is computed twice; shapes.

    The model then says how its operators compute in half precision.
    """
    spell_out(model)
    import_domains(model)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.NameFixPass(),
        infer_shapes,
    ):
        step(model)
    model.metadata_props.update(operator_precision(model).to_props())


def import_domains(model: ir.Model) -> None:
    """Import the domain of every operator, at version 1 where none is known."""
    for node in model.graph.all_nodes():
        model.opset_imports.setdefault(node.domain, node.version or 1)


def write(model: ir.Model, path: Path) -> None:
    """Check a finished model and write it, as a whole or not at all.

    Raises:
        SourceError, InputError: as `written` does.
    """
    with written(model, path):
        pass


@contextmanager
def written(
    model: ir.Model, path: Path, checked: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """A finished model, checked, as a file that takes its place at `path` at the end.

    If what is done within fails, `path` stays as it was. `checked` is called before it is written,
    except where a model is so large that it is checked in the file.

    Raises:
        SourceError: it does not pass `onnx.checker`.
        InputError: the path cannot be written.
    """
    if is_large(model):
        checked()
        with written_large(model, path) as beside:
            yield beside
        return
    proto = checked_proto(model)
    checked()
    with replacing(path) as beside:
        beside.write_bytes(proto.SerializeToString())
        del proto
        yield beside


def checked_proto(model: ir.Model) -> onnx.ModelProto:
    """The finished model as one message, weights from a source's data files included.

    Raises:
        SourceError: it does not pass `onnx.checker` with full shape inference, which is a defect
            of onnxplain.
    """
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise SourceError(NOT_VALID.format(error)) from error
    return proto
