"""The sweep over files from packages: what counts as right. The files themselves it downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxplain.bench.wild.entry import _running, entry, in_float32, slopes, without_activations
from onnxplain.bench.wild.files import FILES, File
from onnxplain.bench.wild.page import markdown, passes

from ..export.graphs import head, images, node, write

GOOD = {
    **{"reason": None, "objective": "class", "why": "", "notes": [], "quantised": False},
    **{"bytes": 1000, "explain_bytes": 1100, "inputs": [], "outputs": []},
    **{"errors": {"logits": 1e-6}, "spread": 0.0, "gradient": {"noise": 1e-4}},
}


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"reason": "SourceError: no"}, False),
        ({"errors": {"logits": 1e-4}}, False),
        ({"errors": {"logits": 1e-4}, "spread": 1e-4}, True),
        ({"gradient": {"noise": 0.1}}, False),
        ({"gradient": {"noise": 0.1}, "quantised": True}, True),
    ],
)
def test_what_passes(changed: dict[str, Any], good: bool) -> None:
    made = GOOD | changed
    assert passes(made) is good
    machine = {"cpu": "a processor", "cores": 2, "versions": {}}
    results = {"files": {next(iter(FILES)): made}, "machine": machine, "onnxplain": "0"}
    assert f"{int(good)} of 1 pass" in markdown(results)


def test_slopes_tell_a_right_gradient_from_a_wrong_one() -> None:
    x = images(1, 3, 16, 16)
    right = 2 * x
    assert max(slopes(lambda z: float((z * z).sum()), x, right, (1e-2,)).values()) < 1e-2
    wrong = right.copy()
    wrong[..., :8, :8] *= -1
    assert max(slopes(lambda z: float((z * z).sum()), x, wrong, (1e-2,)).values()) > 0.1


def test_an_entry_is_of_the_original_before_its_softmax(tmp_path: Path) -> None:
    tail, weight = head("c", 4 * 36)
    nodes = [node("Conv", ["x", "A"], ["c"]), *tail, node("Softmax", ["y"], ["p"])]
    path = write(tmp_path / "n.onnx", nodes, {"A": images(4, 3, 3, 3)} | weight, outputs=["p"])
    bare = onnx.load(without_activations(path, tmp_path))
    assert [n.op_type for n in bare.graph.node][-1] == "Identity"
    made = entry(File("nothing", "n.onnx", "a classifier"), path)
    assert passes(made), made
    assert made["objective"] == "class"
    assert np.isfinite(made["spread"])


def test_a_file_in_float16_is_widened_for_its_differences(tmp_path: Path) -> None:
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    nodes = [
        node("Cast", ["x"], ["h"], to=half),
        node("Conv", ["h", "A"], ["c"]),
        node("Cast", ["c"], ["y"], to=full),
    ]
    weight = images(4, 3, 3, 3).astype(np.float16)
    path = write(tmp_path / "n.onnx", nodes, {"A": weight}, outputs=["y"])
    wide = in_float32(path, tmp_path)
    same = write(
        tmp_path / "same.onnx",
        [node("Conv", ["x", "A"], ["y"])],
        {"A": weight.astype(np.float32)},
        outputs=["y"],
    )
    sizes = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    x = images(*(n.dim_value or 1 for n in sizes))
    np.testing.assert_allclose(_running(wide)(x)["y"], _running(same)(x)["y"], rtol=1e-6)
    kinds = {tensor.data_type for tensor in onnx.load(wide).graph.initializer}
    assert kinds == {full}
