"""bfloat16 on OpenVINO, right for networks whose second convolution is a depthwise one."""

from __future__ import annotations

from typing import Any

from onnxplain.files import scratch
from onnxplain.runtime.conversion.stem import stem
from onnxplain.runtime.sessions.openvino.core import core

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
_KEEP = "precise_0"  # what `disable_fp16_compression` is called in OpenVINO's `rt_info`


def stem_in_float32(model: Any) -> Any:
    """The model (an `openvino.Model`), with its stem marked to stay in float32.

    Without a stem (`runtime.conversion.stem`), it is the model as it was.
    """
    from openvino import save_model

    if not (nodes := _stem(model)):
        return model
    for node in nodes:
        _as_clamp(node)
    for node in _stem(model):
        node.get_rt_info()[_KEEP] = ""
    with scratch() as folder:  # the mark takes effect when read
        path = folder / "stem.xml"
        save_model(model, path, compress_to_fp16=False)
        return core().read_model(path)


def _stem(model: Any) -> list[Any]:
    nodes = {
        node.get_friendly_name(): node
        for node in model.get_ordered_ops()
        if not _is(node, "Constant", "Parameter")
    }

    def producers(name: str) -> list[str]:
        read = (port.get_source_output().get_node() for port in nodes[name].inputs())
        return [made for node in read if (made := node.get_friendly_name()) in nodes]

    found = stem(
        nodes,
        producers,
        lambda name: _is(nodes[name], *_PRODUCTS),
        lambda name: _is(nodes[name], "GroupConvolution"),
    )
    return [nodes[name] for name in found]


def _as_clamp(node: Any) -> None:
    """Replace min(max(x, a), b), which is what a Clip is read as, by one node.

    OpenVINO does so itself, and the node that it puts there is no longer marked.
    """
    from openvino import opset13

    if not _is(node, "Minimum") or (upper := _with_number(node)) is None:
        return
    if not _is(upper[0].get_node(), "Maximum"):
        return
    if (lower := _with_number(upper[0].get_node())) is not None:
        clamp = opset13.clamp(lower[0], lower[1], upper[1])
        clamp.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(clamp.output(0))


def _with_number(node: Any) -> tuple[Any, float] | None:
    """The operand and the number of a binary operation that has a number for the other one."""
    operands = [node.input_value(0), node.input_value(1)]
    operands.sort(key=lambda value: _is(value.get_node(), "Constant"))
    number = operands[1].get_node()
    if not _is(number, "Constant") or number.get_data().size != 1:
        return None
    return operands[0], float(number.get_data().item())


def _is(node: Any, *types: str) -> bool:
    return node.get_type_name() in types
