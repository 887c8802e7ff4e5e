"""Sorting for OpenVINO's processor plugin: across the lanes of its vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

_LANES = 16  # of float32 in AVX-512


def sort_across_channels(model: Any) -> None:
    """Let each TopK over the last axis run over the axis before it, in place, if that is as long as
    a vector.

    Along the last axis the plugin (2026.4) sorts one row after the other; along another it sorts as
    many columns at once as a vector has lanes: [64, 12544] takes 20 ms so, with the transposes to
    and fro, in place of 43 (2 threads, AVX-512).
    """
    import openvino.opset13 as ov

    for node in model.get_ordered_ops():
        if node.get_type_name() != "TopK":
            continue
        x = node.input_value(0)
        shape = x.get_partial_shape()
        axes = len(shape)
        if axes < 2 or node.get_attributes()["axis"] % axes != axes - 1:
            continue
        if shape[-2].is_dynamic or shape[-2].get_length() < _LANES:
            continue
        swap = [*range(axes - 2), axes - 1, axes - 2]
        attributes = node.get_attributes()
        found = ov.topk(
            ov.transpose(x, np.array(swap)),
            node.input_value(1),
            axes - 2,
            attributes["mode"],
            attributes["sort"],
            attributes["index_element_type"],
        )
        for index in (0, 1):
            port = node.output(index)
            for target in port.get_target_inputs():
                back = ov.transpose(found.output(index), np.array(swap))
                target.replace_source_output(back.output(0))
    model.validate_nodes_and_infer_types()
