"""Graphs whose weights do not fit into one protocol buffer: they go to a file beside the graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxplain.errors import InputError, SourceError
from onnxplain.files import check_replaceable, scratch

SINGLE_FILE = 2**31 - 2**24
"""Bytes of weights that still fit into one file with their graph: a message is below 2 GiB."""

NOT_VALID = (
    "the graph made of it is not valid ONNX; where the source itself is, by onnx.checker, please "
    "report it: {}"
)


def is_large(model: ir.Model) -> bool:
    """Whether the model needs a second file."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None) > SINGLE_FILE


@contextmanager
def written_large(model: ir.Model, path: Path) -> Iterator[Path]:
    """The graph, as a file that takes its place at `path` at the end, its weights beside it in
    `<name>.data`.

    Both are complete, and have passed `onnx.checker`, before either takes its place. Weights that
    lie in a source's own data file are copied from there, without being held in memory.

    Raises:
        SourceError: it does not pass the checker, which is a defect of onnxplain.
        InputError: the files cannot be written, or one is a link: whoever opens `path` would look
            for the weights beside the link.
    """
    beside = path.with_name(f"{path.name}.data")
    for place in (path, beside):
        if place.is_symlink():
            raise InputError(
                f"cannot write '{place}': it is a link, and a graph of this size has two files "
                "that lie together; name the file that the link leads to"
            )
    try:
        check_replaceable(path)
        check_replaceable(beside)
        with scratch(path.parent) as folder:
            graph, data = folder / path.name, folder / beside.name
            ir.save(model, graph, external_data=data.name)
            try:
                onnx.checker.check_model(graph, full_check=True)
            except Exception as error:
                raise SourceError(NOT_VALID.format(error)) from error
            yield graph
            data.replace(beside)
            graph.replace(path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error
