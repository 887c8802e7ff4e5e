"""Which layer of the network a node belongs to, and names that tell it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import onnx_ir as ir
from onnxscript import OpBuilder

_SCOPES = "pkg.torch.onnx.name_scopes"


def modules_of(node: ir.Node) -> list[str]:
    """The paths of the modules that a node of PyTorch's exporter stood in, from the outermost."""
    scopes = node.metadata_props.get(_SCOPES)
    return [path for path in ast.literal_eval(scopes)[:-1] if path] if scopes else []


def origin(node: ir.Node) -> str:
    """What tells a reader where in the network a node is: its module and operator, or its name."""
    if modules := modules_of(node):
        return f"{modules[-1]}/{node.op_type}"
    return (node.name or node.op_type).lstrip("/")


@contextmanager
def named_after(op: OpBuilder, prefix: str) -> Iterator[None]:
    """Nodes emitted within are named `prefix/Operator`; those alike are numbered in the end."""
    graph = op.builder.graph
    before = len(graph)
    yield
    for node in islice(reversed(graph), len(graph) - before):
        node.name = f"{prefix}/{node.op_type}"


def prefix_of(name: str | None) -> str:
    """The prefix in such a name, for what takes the place of its node."""
    return (name or "").rpartition("/")[0]
