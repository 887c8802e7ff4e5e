"""The reader of ONNX files takes each for what the libraries take it for."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from onnxplain.errors import BackendError
from onnxplain.runtime.onnx_file import (
    check_nodes,
    operators,
    read_metadata,
    read_ports,
    weights_beside,
)
from onnxplain.runtime.signature import Port

GRAPH, NODE, OPERATOR, DOMAIN, INITIALIZER, EXTERNAL = 7, 1, 4, 7, 5, 13


def field(number: int, content: bytes) -> bytes:
    """A length-delimited one of a number below 16 and of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def written(tmp_path: Path, *content: bytes) -> Path:
    (path := tmp_path / "m.onnx").write_bytes(b"".join(content))
    return path


def enormous() -> bytes:
    """A node whose shape inference divides by zero."""
    return helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2**62).SerializeToString()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (field(DOMAIN, b"x"), field(DOMAIN, b"")),
        (field(OPERATOR, b"X"), field(OPERATOR, b"DepthToSpace")),
        (field(OPERATOR, b"X"), b""),
    ],
)
def test_of_a_name_that_stands_twice_the_last_counts(
    before: bytes, after: bytes, tmp_path: Path
) -> None:
    path = written(tmp_path, field(GRAPH, field(NODE, before + enormous() + after)))
    (node,) = onnx.load(path).graph.node
    assert (node.op_type, node.domain) == ("DepthToSpace", "")
    assert operators(path) == {"DepthToSpace": 1}
    with pytest.raises(BackendError, match="blocksize of DepthToSpace"):
        check_nodes(path)


def test_of_an_attribute_that_stands_twice_both_are_checked(tmp_path: Path) -> None:
    small = helper.make_attribute("blocksize", 2).SerializeToString()
    path = written(tmp_path, field(GRAPH, field(NODE, enormous() + field(5, small))))
    with pytest.raises(BackendError, match="blocksize of DepthToSpace"):
        check_nodes(path)


def test_a_field_whose_number_libraries_cut_short_is_refused(tmp_path: Path) -> None:
    """In 32 bits it is the operator's."""
    operator = bytes([OPERATOR << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10, 3]) + b"Sum"
    path = written(tmp_path, field(GRAPH, field(NODE, operator)))
    with pytest.raises(BackendError, match="not an ONNX file"):
        check_nodes(path)


@pytest.mark.parametrize(
    "entry",
    [
        field(1, b"location") + field(2, b"sub/") + field(2, b"../secret.bin"),
        field(1, b"x") + field(1, b"location") + field(2, b"../secret.bin"),
    ],
)
def test_weights_lie_where_libraries_look_for_them(entry: bytes, tmp_path: Path) -> None:
    (folder := tmp_path / "model" / "sub").mkdir(parents=True)
    for file in (tmp_path, folder.parent):
        (file / "secret.bin").write_bytes(bytes(4))
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1).SerializeToString()
    weights = field(INITIALIZER, tensor + field(EXTERNAL, entry))
    path = written(folder.parent, field(GRAPH, weights))
    with pytest.raises(BackendError, match=r"secret\.bin'.* outside"):
        weights_beside(path)


def test_so_it_is_of_metadata_and_of_ports(tmp_path: Path) -> None:
    entry = field(1, b"a") + field(1, b"key") + field(2, b"b") + field(2, b"value")
    dimension = b"\x08\x05\x08\x07"  # 5, then 7
    tensor = b"\x08\x0a\x08\x01" + field(2, field(1, dimension))  # float16, then float32
    port = field(1, b"y") + field(1, b"x") + field(2, field(1, tensor))
    path = written(tmp_path, field(14, entry), field(GRAPH, field(11, port)))
    model = onnx.load(path)
    assert model.graph.input[0] == helper.make_tensor_value_info("x", 1, [7])
    assert read_metadata(path) == {"key": "value"} == {p.key: p.value for p in model.metadata_props}
    assert read_ports(path)[0] == {"x": Port("float32", (7,))}
