"""Functions of a model, written out in its opset."""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import operator_name


def write_out_functions(model: ir.Model) -> None:
    """Replace calls of functions by their bodies, in place.

    Raises:
        SourceError: a function that is called was written for another opset than the model's, in
            which one of its operators is another, as ONNX does not allow.
    """
    own = model.graph.opset_imports
    for function in _called(model):
        imports = function.opset_imports
        for node in function.all_nodes():
            domain = node.domain
            theirs, ours = (versions.get(domain) for versions in (imports, own))
            if theirs is None or ours is None or theirs == ours:
                continue
            if _since(node.op_type, theirs, domain) != _since(node.op_type, ours, domain):
                raise SourceError(
                    f"the function {function.name!r} is written for opset {theirs}, in which "
                    f"{operator_name(node)} is another than in the model's own, {ours}: ONNX does "
                    "not allow it, and runtimes take the model's; export the network again, to one "
                    "opset"
                )
        imports.update({domain: own[domain] for domain in imports.keys() & own.keys()})
    common.InlinePass()(model)


def _called(model: ir.Model) -> list[ir.Function]:
    """The functions that the graph calls, and those that they call."""
    called: dict[ir.OperatorIdentifier, ir.Function] = {}
    nodes = list(model.graph.all_nodes())
    while nodes:
        key = nodes.pop().op_identifier()
        if key in model.functions and key not in called:
            called[key] = model.functions[key]
            nodes.extend(called[key].all_nodes())
    return list(called.values())


@cache
def _since(op_type: str, version: int, domain: str) -> int | None:
    """The opset that gave an operator the form it has in another; None if that does not have it."""
    if not onnx.defs.has(op_type, version, domain):
        return None
    return int(onnx.defs.get_schema(op_type, version, domain).since_version)
