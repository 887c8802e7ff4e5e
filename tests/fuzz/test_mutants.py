"""Whatever a file holds ends in an explanation or in an error of onnxplain's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import onnxplain
from onnxplain.errors import BackendError, SourceError
from onnxplain.runtime.onnx_file import check_nodes

from .campaign import RESULTS
from .seeds import convolutional, quantised, recurrent
from .targets import NAMES, OWN, target


@pytest.mark.parametrize(
    ("name", "mutants"),
    [
        *(("export", 10), ("explain", 30), ("differentiate", 10)),
        *(("metadata", 10), ("images", 30), ("requests", 30), ("archives", 20)),
    ],
)
def test_some(name: str, mutants: int, tmp_path: Path) -> None:
    tried = target(name, tmp_path)
    assert {tried.judged(number, tmp_path) for number in range(mutants)} <= OWN


def test_so_did_all_that_were_tried() -> None:
    for name, log in json.loads(RESULTS.read_text())["targets"].items():
        assert log["ends"].keys() <= OWN, (name, log["others"])
        assert sum(log["ends"].values()) == log["mutants"]


@pytest.mark.sweep
@pytest.mark.parametrize("name", NAMES)
def test_many(name: str, tmp_path: Path) -> None:
    """About five minutes; `python -m tests.fuzz.campaign` goes on for hours."""
    log = tmp_path / "log.json"
    command = [sys.executable, "-m", "tests.fuzz.campaign", name]
    subprocess.run([*command, "--mutants", "4000", "--out", log], check=True)
    found = json.loads(log.read_text())["targets"][name]
    assert found["mutants"] == 4000
    assert found["ends"].keys() <= OWN, found["others"]


def miscounted(model: onnx.ModelProto) -> None:
    """A Split that says another number of outputs than it has."""
    split = next(node for node in model.graph.node if node.op_type == "Split")
    split.attribute[-1].i = 1


def incomplete(model: onnx.ModelProto) -> None:
    """A sum with an operand left out."""
    join = next(node for node in model.graph.node if node.op_type == "Concat")
    del join.attribute[:]
    join.op_type, join.input[0] = "Sum", ""


def enormous(model: onnx.ModelProto) -> None:
    """A block whose number of pixels is 0 in 64 bits."""
    join = next(node for node in model.graph.node if node.op_type == "Concat")
    del join.input[1:], join.attribute[:]
    join.op_type = "DepthToSpace"
    join.attribute.append(onnx.helper.make_attribute("blocksize", 2**62))


def lying(model: onnx.ModelProto) -> None:
    """A vector of two numbers, of which a shape says that it has 2³¹."""
    pads = next(tensor for tensor in model.graph.initializer if tensor.name == "pads")
    pads.dims[:] = [2**31]


def negative(model: onnx.ModelProto) -> None:
    pads = next(tensor for tensor in model.graph.initializer if tensor.name == "pads")
    pads.dims[:] = [-8]


def untyped(model: onnx.ModelProto) -> None:
    """A pattern looked for in what is of no known type: shape inference reads that type."""
    join = next(node for node in model.graph.node if node.op_type == "Concat")
    del join.attribute[:], join.input[1:]
    join.op_type, join.input[0] = "RegexFullMatch", "unknown"
    model.graph.node.add(op_type="Thing", domain="some.one", input=["x"], output=["unknown"])


def unmade(model: onnx.ModelProto) -> None:
    """A diagonal as large as what is not there: shape inference reads its type."""
    untyped(model)
    join = next(node for node in model.graph.node if node.op_type == "RegexFullMatch")
    join.op_type, join.input[0] = "EyeLike", "nowhere"
    join.attribute.append(onnx.helper.make_attribute("dtype", 1))


def circular(model: onnx.ModelProto) -> None:
    """A branch that needs what it makes: a rewriter fills the memory with it."""
    (branch,) = (node for node in model.graph.node if node.op_type == "If")
    for attribute in branch.attribute:
        attribute.g.node[0].input[0] = branch.output[0]


class TestFound:
    """What ended the process, or took minutes, when it was a mutant."""

    @pytest.mark.parametrize(
        "change", [miscounted, incomplete, enormous, lying, negative, untyped, unmade]
    )
    def test_by_export(self, change: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
        model, path = quantised(), tmp_path / "m.onnx"
        change(model)
        onnx.save(model, path)
        with pytest.raises(SourceError, match="not a readable ONNX model"):
            onnxplain.export(path, tmp_path / "explain.onnx")

    def test_a_circle(self, tmp_path: Path) -> None:
        model, path = recurrent(), tmp_path / "m.onnx"
        circular(model)
        onnx.save(model, path)
        with pytest.raises(SourceError, match="cycle"):
            onnxplain.export(path, tmp_path / "explain.onnx")

    def test_nodes_in_another_order_are_sorted(self, tmp_path: Path) -> None:
        model, written = convolutional(), []
        for path in (tmp_path / "m.onnx", tmp_path / "reversed.onnx"):
            onnx.save(model, path)
            onnxplain.export(path, path.with_suffix(".explain.onnx"))
            written.append(onnx.load(path.with_suffix(".explain.onnx")).graph)
            backwards = list(model.graph.node)[::-1]
            del model.graph.node[:]
            model.graph.node.extend(backwards)
        assert written[0] == written[1]

    @pytest.mark.parametrize("change", [miscounted, incomplete, enormous])
    def test_by_explain(self, change: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
        model, path = quantised(), tmp_path / "m.onnx"
        change(model)
        onnx.save(model, path)
        with pytest.raises(BackendError, match="cannot be run"):
            check_nodes(path)

    def test_numbers_packed_into_one_field_are_read(self, tmp_path: Path) -> None:
        """Which protocol buffers allow, and onnx does not write."""
        number = b"\xff" * 8 + b"\x7f"  # 2⁶³ − 1
        attribute = b"\x0a\x04pads" + b"\x42" + bytes([len(number)]) + number
        node = b"\x22\x03Pad" + b"\x2a" + bytes([len(attribute)]) + attribute
        graph = b"\x0a" + bytes([len(node)]) + node
        (path := tmp_path / "m.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
        assert list(onnx.load(path).graph.node[0].attribute[0].ints) == [2**63 - 1]
        with pytest.raises(BackendError, match="pads of Pad is 9223372036854775807"):
            check_nodes(path)
