"""What a graph shows of its outputs, and what is asked for: graphs of a few nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.objectives.objective import Fit, Objective
from onnxplain.export.objectives.recognise import chosen
from onnxplain.export.sources.source import read

SIZE, CELLS, NUMBERS = 64, 8, 8
RAW = [
    "y = Conv <strides = [8, 8]> (image, w)",
    "flat = Reshape(y, rows)",
    "raw = Transpose <perm = [0, 2, 1]> (flat)",  # [N, 64, 8]
    "four, one, three = Split <axis = 2> (raw, four_one_three)",
]
OF_CLASSES = [
    "yc = Conv <strides = [8, 8]> (image, wc)",
    "flat_c = Reshape(yc, rows_c)",
    "classes = Transpose <perm = [0, 2, 1]> (flat_c)",  # [N, 64, 3]
    "pc = Sigmoid(classes)",
]
DECODED = ["moved = Mul(four, eight)", "boxes = Add(moved, anchors)"]
ACTIVATED = ["p = Sigmoid(three)", "o = Sigmoid(one)", "soft = Softmax <axis = 2> (three)"]


def anchors(form: str) -> np.ndarray:
    """Of cells of 8 pixels, row by row, twice as large."""
    rows, columns = np.mgrid[:CELLS, :CELLS] * 8.0 + 4
    centre = np.stack([columns.ravel(), rows.ravel()], 1)
    if form == "cxcywh":
        return np.concatenate([centre, np.full_like(centre, 16)], 1)
    corners = np.concatenate([centre - 8, centre + 8], 1)
    return corners if form == "xyxy" else corners[:, [1, 0, 3, 2]] / SIZE


def file(folder: Path, lines: list[str], outputs: dict[str, str], form: str = "cxcywh") -> Path:
    """An ONNX file of nodes after those above."""
    declared = ", ".join(f"float[N,{sizes}] {name}" for name, sizes in outputs.items())
    nodes = "\n".join([*RAW, *OF_CLASSES, *DECODED, *ACTIVATED, *lines])
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 20]> g (float[N,3,64,64] image) => ({declared}) '
        f"{{{nodes}}}"
    )
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((NUMBERS, 3, 8, 8)).astype(np.float32) / 10,
        "v": random.standard_normal((NUMBERS, 4)).astype(np.float32),
        "references": random.standard_normal((64, 4)).astype(np.float32),
        "anchors": anchors(form).astype(np.float32),
        "two": np.array([1, 1, 2, 2], np.float32),
        "one_axis": np.array([1]),
        "eight": np.array(8, np.float32),
        "wc": random.standard_normal((3, 3, 8, 8)).astype(np.float32) / 10,
        "rows_c": np.array([0, 3, 64]),
        "rows": np.array([0, NUMBERS, 64]),
        "four_one_three": np.array([4, 1, 3]),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    onnx.save(model, folder / "source.onnx")
    return folder / "source.onnx"


def recognised(path: Path, **settings: str) -> tuple[Objective, Fit]:
    source = canonicalise(read(path, classifier=None).model, classifier=None)
    return chosen(source.model, None, settings)


YOLO8 = ["all = Concat <axis = 2> (boxes, pc)", "y8 = Transpose <perm = [0, 2, 1]> (all)"]
SHOWN: dict[str, tuple[list[str], dict[str, str], str, dict[str, str]]] = {
    "yolov8": (YOLO8, {"y8": "7,64"}, "cxcywh", {"objectness": "no", "classes": "3"}),
    "yolov8 of corners": (YOLO8, {"y8": "7,64"}, "xyxy", {"boxes": "xyxy", "units": "pixels"}),
    "objectness apart": (
        ["all = Concat <axis = 2> (boxes, o, p)"],
        {"all": "64,8"}, "cxcywh", {"objectness": "yes", "classes": "3"},
    ),
    "yolov5": (
        [
            "s = Sigmoid(raw)", "b, rest = Split <axis = 2, num_outputs = 2> (s)",
            "m = Mul(b, eight)", "d = Add(m, anchors)", "all = Concat <axis = 2> (d, rest)",
        ],
        {"all": "64,8"}, "cxcywh", {"objectness": "yes", "classes": "3", "units": "pixels"},
    ),
    "scores apart": (
        [], {"boxes": "64,4", "p": "64,3"}, "yxyx",
        {"boxes": "yxyx", "units": "relative", "scores": "probabilities", "background": "none"},
    ),
    "detr": (
        ["q = MatMul(raw, v)", "pred = Sigmoid(q)"], {"pred": "64,4", "three": "64,3"}, "cxcywh",
        {"boxes": "cxcywh", "units": "relative", "scores": "softmax", "background": "last"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHOWN)
def test_what_a_graph_shows_of_a_detector(case: str, tmp_path: Path) -> None:
    lines, outputs, form, settings = SHOWN[case]
    objective, fit = recognised(file(tmp_path, lines, outputs, form))
    assert objective.name == "detection"
    assert settings.items() <= dict(fit.settings).items()


ASKED: dict[str, tuple[list[str], dict[str, str], str]] = {
    "offsets": (
        [], {"four": "64,4", "three": "64,3"}, r"detection .*settings boxes=.*, units=.*, .*scores="
    ),
    "nanodet": (["all = Concat <axis = 2> (p, four, o)"], {"all": "64,8"}, r"detection .*boxes="),
    "tokens": ([], {"raw": "64,8"}, r"raw \[N, 64, 8\]; choose with objective=: .*sequence \("),
    "softmax beside offsets": (
        [], {"four": "64,4", "soft": "64,3"}, r"settings boxes=.*, units=.*, background="
    ),
    "relative": (
        ["s = Sigmoid(four)"], {"s": "64,4", "p": "64,3"}, r"detection .*the settings boxes=[^,]*\)"
    ),
    "keypoints": (
        ["all = Concat <axis = 2> (boxes, pc, one)", "t = Transpose <perm = [0, 2, 1]> (all)"],
        {"t": "8,64"}, r"detection .*the settings classes=NUMBER\)",
    ),
    "rt-detr": (
        ["q = MatMul(raw, v)", "r = Add(q, references)", "pred = Sigmoid(r)"],
        {"pred": "64,4", "three": "64,3"}, r"detection .*boxes=.*, background=.*, scores=",
    ),
    "rt-detr in one": (
        [
            "q = MatMul(raw, v)", "r = Add(q, references)", "pred = Sigmoid(r)",
            "all = Concat <axis = 2> (pred, pc)",
        ],
        {"all": "64,7"}, r"3 classes; with the settings boxes=[^,]*\)",
    ),
    "ssd": ([], {"boxes": "64,4", "soft": "64,3"}, r"detection .*the settings background=[^,]*\)"),
    "retinanet": ([], {"boxes": "64,4", "three": "64,3"}, r"settings background=.*, scores="),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_what_nothing_shows_is_asked_for(case: str, tmp_path: Path) -> None:
    lines, outputs, message = ASKED[case]
    path = file(tmp_path, lines, outputs)
    with pytest.raises(SourceError, match=f"do not tell what to explain; .*{message}"):
        recognised(path)
    if "detection" in message:
        asks = r"'detection' cannot tell enough: .*; choose the settings .*; its outputs:"
        with pytest.raises(SourceError, match=asks):
            onnxplain.export(path, tmp_path / "e.onnx", objective="detection")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": "abc"}, "classes is a whole number above 0, not 'abc'"),
        ({"classes": "500"}, "no scores of 500 classes"),
        ({"boxes": "corners"}, r"boxes is one of cxcywh, .*, not 'corners'"),
        ({"layout": "final"}, r"y8 is not \[N, A, 6\]"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    path = file(tmp_path, YOLO8, {"y8": "7,64"})
    with pytest.raises(SourceError, match=message):
        onnxplain.export(path, tmp_path / "e.onnx", objective="detection", settings=settings)


def test_what_a_softmax_ends_is_a_sequence(tmp_path: Path) -> None:
    assert recognised(file(tmp_path, [], {"soft": "64,3"}))[0].name == "sequence"


@pytest.mark.parametrize(
    ("lines", "output", "objective"),
    [
        ([], {"y": "8,8,8"}, ""),  # of 8 channels as of 8 rows
        ([], {"yc": "3,8,8"}, "segment"),
        (["big = Resize(yc, , two)"], {"big": "3,16,16"}, "segment"),
        (["sum = Add(yc, yc)"], {"sum": "3,8,8"}, "segment"),
        (["features = Relu(yc)"], {"features": "3,8,8"}, ""),
        (["n = Sigmoid(yc)", "swish = Mul(yc, n)"], {"swish": "3,8,8"}, ""),
        (["depth = ReduceMean <keepdims = 1> (yc, one_axis)"], {"depth": "1,8,8"}, ""),
        (
            ["mean = ReduceMean <keepdims = 1> (yc, one_axis)", "mask = Sigmoid(mean)"],
            {"mask": "1,8,8"},
            "segment",
        ),
    ],
    ids=str,
)
def test_what_shows_a_map_of_classes(
    lines: list[str], output: dict[str, str], objective: str, tmp_path: Path
) -> None:
    path = file(tmp_path, lines, output)
    if objective:
        assert recognised(path)[0].name == objective
        return
    with pytest.raises(SourceError, match="do not tell what to explain"):
        recognised(path)


def test_settings_answer_what_is_asked(tmp_path: Path) -> None:
    path = file(tmp_path, [], {"boxes": "64,4", "soft": "64,3"}, "xyxy")
    objective, fit = recognised(path, background="first")
    assert (objective.name, fit.classes) == ("detection", 2)
