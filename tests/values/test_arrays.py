"""What a file of other values takes, and every wrong guess of it as a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

import onnxplain
from onnxplain.batch import Options as Lake
from onnxplain.batch import explain_lake
from onnxplain.contract.objective import BOX, ObjectiveInput
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.runtime import Explainer
from onnxplain.runtime.counterfactuals import Grid
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.inputs.objective import as_inputs, read_input
from onnxplain.runtime.report import write_report
from onnxplain.runtime.signature import Port, Signature
from onnxplain.runtime.tune import tune
from onnxplain.runtime.verification import samples
from onnxplain.serve.models import _metadata
from onnxplain.serve.packages.triton import Options as Package
from onnxplain.serve.packages.triton import write_repository
from onnxplain.stream.run import explain_stream
from onnxplain.web import write_site

from .networks import TWO, WORDS, written

Array = npt.NDArray[Any]
IDS = np.array([[0, 3, 1], [2, 2, 2]])
MASK = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    folder = tmp_path_factory.mktemp("words")
    source = written(WORDS, folder / "words.onnx")
    onnxplain.export(source, folder / "e.onnx", method="gradient", wrt="embedded")
    return onnxplain.load(folder / "e.onnx", "cpu")


def test_the_file_has_the_networks_inputs_under_their_names(words: Explainer) -> None:
    assert words.path is not None
    graph = onnx.load(words.path).graph
    assert [x.name for x in graph.input] == ["words", "mask", "target"]
    assert [y.name for y in graph.output] == ["logits", "pullback"]
    props = {p.key: p.value for p in onnx.load(words.path).metadata_props}
    assert "onnxplain.values" in props
    assert "onnxplain.preprocessing" not in props


def test_an_explanation_of_some(words: Explainer) -> None:
    explanation = words({"words": IDS, "mask": MASK})
    assert len(explanation) == 2
    one = explanation[1]
    np.testing.assert_array_equal(one.pullback, explanation.pullback[1:])
    np.testing.assert_array_equal(one.given["words"], IDS[1:])
    assert one.labels(1) == explanation.labels(1)[1:]


def test_whole_numbers_of_any_width_and_lists_do(words: Explainer) -> None:
    as_is = words({"words": IDS, "mask": MASK})
    again = words({"words": IDS.astype(np.int32).tolist(), "mask": MASK.astype(bool)})
    np.testing.assert_array_equal(as_is.pullback, again.pullback)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            IDS,
            r"explains embedded \(tokens of words\): give its inputs by name, as {'words': int64",
        ),
        ({"words": IDS}, r"the input 'mask': float32 \[N, T\] is missing"),
        ({"words": IDS, "mask": MASK, "x": 1}, "no input 'x'; its inputs are 'words': int64"),
        ({"words": IDS * 1.0, "mask": MASK}, r"'words': int64 \[N, T\] is given floats, float64"),
        ({"words": "a word", "mask": MASK}, r"'words': int64 \[N, T\] is given str"),
        ({"words": [[1, 2], [3]], "mask": MASK}, "rows of several lengths: pad them"),
        ({"words": IDS[0], "mask": MASK}, r"given an array of the shape \[3\]"),
        ({"words": IDS[:0], "mask": MASK}, r"given an array of the shape \[0, 3\]"),
        ({"words": IDS, "mask": MASK[:, :2]}, "T is 3 in 'words', and 2 in 'mask'"),
        ({"words": IDS, "mask": MASK[:1]}, "N is 2 in 'words', and 1 in 'mask'"),
        ({"words": IDS, "mask": MASK * np.nan}, "'mask' has NaN"),
        ({"words": IDS, "mask": MASK * np.float64(1e300)}, "'mask' has NaN .*, or beyond float32"),
        ({"words": IDS.astype(np.uint64) + 2**63, "mask": MASK}, "numbers that int64 cannot hold"),
    ],
)
def test_wrong_arrays_are_sentences(words: Explainer, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        words(given)


def test_tokens_that_the_table_has_not(words: Explainer) -> None:
    with pytest.raises(BackendError, match="out of"):
        words({"words": IDS + 9, "mask": MASK})


def test_arrays_are_explained_in_one_run(words: Explainer) -> None:
    with pytest.raises(InputError, match="in one run"):
        words({"words": IDS, "mask": MASK}, batch_size=1)  # type: ignore[call-overload]


def test_what_needs_images_says_so(words: Explainer) -> None:
    x = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(BackendError, match="accentuation explains images, and this file explains"):
        onnxplain.accentuate(words, x)
    with pytest.raises(InputError, match="this file does not explain images"):
        as_batch(x, words.metadata.preprocessing)


def test_every_application_names_the_way(words: Explainer, tmp_path: Path) -> None:
    file, photograph, out = words.path, tmp_path / "x.png", tmp_path / "out"
    assert file is not None
    Image.new("RGB", (8, 8)).save(photograph)
    source: Any = SimpleNamespace(frames=lambda: iter([]), stop=lambda: None)
    applications: dict[str, Callable[[], object]] = {
        "the service": lambda: _metadata(file),
        "a batch run": lambda: explain_lake(file, [str(photograph)], out, Lake(provider="cpu")),
        "a stream": lambda: explain_stream(source, words, []),
        "a report": lambda: write_report(words, [photograph], tmp_path / "report.html"),
        "the package for Triton": lambda: write_repository(file, out, "words", Package()),
        "the page": lambda: write_site(file, out),
        "tuning": lambda: tune(words, [photograph]),
        "a grid of counterfactuals": lambda: Grid.of(words, [photograph], None),
        "a comparison on images": lambda: samples(words, [photograph]),
    }
    for what, run in applications.items():
        way = (
            f"{what} explains images, and .*: give its arrays by name, in a .npz file to onnxplain"
        )
        with pytest.raises(BackendError, match=way):
            run()
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        (None, r"no image-like input.*with wrt=.*as mask, embedded \(the embedding of words\); "
         r"inputs: words INT64\[N,T\], mask FLOAT"),
        ("embeded", "no value 'embeded' in the network; did you mean embedded"),
        ("words", "'words' int64.* has no derivative; embedded, made of it, has"),
        ("table", "first axis of 'table' .* is not the batch; onnxplain.differentiate"),
        ("probabilities", "puts out is made of 'probabilities'"),
        (["mask", "mask"], "named twice"),
    ],
)  # fmt: skip
def test_wrong_names_are_sentences(wrt: Any, message: str, tmp_path: Path) -> None:
    source = written(WORDS, tmp_path / "words.onnx")
    with pytest.raises(SourceError, match=message):
        onnxplain.export(source, tmp_path / "e.onnx", wrt=wrt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 64}, "size= is of an image"),
        ({"mean": [0.5]}, "mean= is of an image"),
        ({"step": True}, "step= is of an image"),
        ({"input": "mask"}, "input= is of an image"),
        ({"method": "gradcam"}, "'gradcam' makes a map of an image"),
    ],
)
def test_options_of_images_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = written(WORDS, tmp_path / "words.onnx")
    with pytest.raises(SourceError, match=message):
        onnxplain.export(source, tmp_path / "e.onnx", wrt="mask", **options)


def test_of_two_pictures_one_is_explained_and_both_stay(tmp_path: Path) -> None:
    source = written(TWO, tmp_path / "two.onnx")
    with pytest.raises(SourceError, match=r"several image-like.*wrt= .*left.*right"):
        onnxplain.export(source, tmp_path / "e.onnx")
    with pytest.raises(SourceError, match=r"depend on right besides 'left'; with wrt=left"):
        onnxplain.export(source, tmp_path / "e.onnx", input="left")
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient", wrt="right")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    left, right = np.random.default_rng(0).normal(size=(2, 1, 2, 4, 4)).astype(np.float32)
    explanation = explainer({"left": left, "right": right}, 1)
    expected = np.where(left * right > 0, left, 0) / 16
    expected[:, 0] = 0
    np.testing.assert_allclose(explanation.pullback, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [-1, 0, None])
def test_sizes_without_a_name_are_open(size: int | None, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(WORDS)
    for x in model.graph.input:
        for one in x.type.tensor_type.shape.dim:
            one.Clear()
            if size is not None:
                one.dim_value = size
    onnx.save(model, tmp_path / "words.onnx")
    onnxplain.export(tmp_path / "words.onnx", tmp_path / "e.onnx", method="gradient", wrt="mask")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    sizes = [one.sizes for one in explainer.metadata.values.inputs.values()]
    assert sizes == [("batch", "mask_1"), ("batch", "words_1")]
    assert explainer({"words": IDS, "mask": MASK}).pullback.shape == (2, 3)


@pytest.mark.usefixtures("compared")
def test_half_precision_is_explained_in_float32(tmp_path: Path) -> None:
    text = TWO.replace("float[", "float16[")
    source = written(text, tmp_path / "two.onnx")
    notes = onnxplain.export(source, tmp_path / "e.onnx", method="gradient", wrt="right").notes
    assert not any("not checked" in note for note in notes)
    x = np.ones((1, 2, 4, 4), np.float16)
    explanation = onnxplain.load(tmp_path / "e.onnx", "cpu")({"left": x, "right": x}, 0)
    assert explanation.pullback.dtype == np.float32
    assert explanation.pullback[0, 0].tolist() == [[1 / 16] * 4] * 4


def test_names_that_the_file_needs_itself(tmp_path: Path) -> None:
    text = TWO.replace("left", "target").replace("right", "image")
    source = written(text, tmp_path / "two.onnx")
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient", wrt="target")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    assert [*explainer.metadata.values.inputs] == ["source.target", "image"]
    x = np.ones((1, 2, 4, 4), np.float32)
    assert explainer({"source.target": x, "image": x}, 0).pullback.shape == x.shape


@pytest.mark.parametrize("method", ["excitation", "gradient"])
def test_an_input_called_as_a_parameter_is_the_networks(method: str, tmp_path: Path) -> None:
    text = TWO.replace("left", "temperature").replace("right", "alpha")
    source = written(text, tmp_path / "two.onnx")
    onnxplain.export(source, tmp_path / "e.onnx", method=method, wrt="alpha")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    assert explainer.backend.signature.live == ()
    x = np.full((1, 2, 4, 4), 3, np.float32)
    found = explainer({"source.temperature": x, "source.alpha": x}, 0)
    np.testing.assert_allclose(found.logits, 9)


def test_what_a_file_calls_as_a_parameter_is_no_live_one(tmp_path: Path) -> None:
    onnxplain.export(
        written(TWO, tmp_path / "two.onnx"), tmp_path / "e.onnx", method="excitation", wrt="left"
    )
    props = {p.key: p.value for p in onnx.load(tmp_path / "e.onnx").metadata_props}
    props["onnxplain.values"] = props["onnxplain.values"].replace("right", "temperature")
    ports = {name: Port("float32", (None, 2, 4, 4)) for name in ("left", "temperature")}
    inputs = {**ports, "target": Port("int64", (None,))}
    outputs = {"logits": Port("float32", (None, 2)), "pullback": Port("float32", (None, 2, 4, 4))}
    assert Signature.of(props, inputs, outputs).live == ()


def test_tokens_stay_tokens_under_another_name(tmp_path: Path) -> None:
    source = written(WORDS.replace("words", "target"), tmp_path / "words.onnx")
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient", wrt="embedded")
    values = onnxplain.load(tmp_path / "e.onnx", "cpu").metadata.values
    assert values.inputs["source.target"].kind == "tokens"
    assert values.explained["embedded"].input == "source.target"


MAP = """
    <ir_version: 9, opset_import: ["": 20]>
    map (float[N, 2, 4, 4] left, float[N, 2, 4, 4] right) => (float[N, 2, 4, 4] y)
    { y = Mul (left, right) }
"""


def test_a_region_is_an_array_and_a_box_is_left_out(tmp_path: Path) -> None:
    source = written(MAP, tmp_path / "map.onnx")
    options: Any = {"objective": "segment", "settings": {"layout": "NCHW"}}
    onnxplain.export(source, tmp_path / "e.onnx", method="gradient", wrt="left", **options)
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    x, region = np.ones((1, 2, 4, 4), np.float32), np.eye(4)
    found = explainer({"left": x, "right": x}, 1, region=region)
    np.testing.assert_allclose(found.pullback[0, 1], region / 4)
    Image.new("L", (8, 8)).save(tmp_path / "region.png")
    with pytest.raises(InputError, match=r"give the region as an array \[4, 4\]"):
        read_input("region", str(tmp_path / "region.png"), explainer.metadata)
    boxes = {"box": ObjectiveInput("a box", (4,), 0, BOX)}
    objective = replace(explainer.metadata.objective, inputs=boxes)
    metadata = replace(explainer.metadata, objective=objective)
    signature = replace(explainer.backend.signature, metadata=metadata)
    with pytest.raises(InputError, match="'box' lies in an image, and this file explains by other"):
        as_inputs(signature, {"box": [0, 0, 2, 2]}, 1)


def test_an_image_file_takes_no_mapping(tmp_path: Path) -> None:
    source = written(
        TWO.replace(", float[N, 2, 4, 4] right", "").replace("right", "left"), tmp_path / "one.onnx"
    )
    onnxplain.export(source, tmp_path / "e.onnx")
    with pytest.raises(InputError, match="this file explains images"):
        onnxplain.load(tmp_path / "e.onnx", "cpu")({"image": np.zeros(1)})


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("method", ["excitation", "gradient"])
def test_it_is_verified_against_its_source(method: str, tmp_path: Path) -> None:
    source, graph = written(WORDS, tmp_path / "words.onnx"), tmp_path / "e.onnx"
    assert not onnxplain.export(source, graph, method=method, wrt=["embedded", "mask"]).notes
    found = onnxplain.verify(graph, source)
    assert found.passed
    differences = ["mask, along the pullback", "mask, along noise"]
    assert [check.what for check in found.checks] == [
        *("logits", "pullback.embedded", "pullback.mask", "logits, by the source itself"),
        *(differences if method == "gradient" else ()),
    ]
    if method == "gradient":
        assert onnxplain.verify(graph, provider="openvino").passed
    with pytest.raises(InputError, match="source="):
        onnxplain.verify(graph, provider="cpu")
