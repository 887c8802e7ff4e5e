"""When two answers are the same, and what is said where they are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import onnxplain
from onnxplain.errors import SourceError, UnfinishedError
from onnxplain.reference import forward, logits, outputs, running, sources, values
from onnxplain.reference.outputs import is_alike, is_same

Array = npt.NDArray[Any]


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ([1.0, 2.0, -np.inf, np.nan], True),
        ([1.0 + 1e-6, 2.0, -np.inf, np.nan], True),
        ([1.1, 2.0, -np.inf, np.nan], False),
        ([1.0, 2.0, 3.0, np.nan], False),
        ([1.0, 2.0, np.inf, np.nan], False),
        ([1.0, np.nan, -np.inf, np.nan], False),
    ],
)
def test_rounding_is_allowed_beside_what_is_not_finite(found: list[float], same: bool) -> None:
    expected = np.array([1.0, 2.0, -np.inf, np.nan], np.float32)
    assert is_same(np.array(found, np.float32), expected, 1e-4) is same


def test_whole_numbers_are_equal() -> None:
    assert is_same(np.array([1, 2]), np.array([1, 2]), 1.0)
    assert not is_same(np.array([1, 2]), np.array([1, 3]), 1.0)


def test_rounding_may_decide_some_whole_numbers_and_truths() -> None:
    labels, truths = np.arange(100), np.arange(100) < 4
    assert is_alike(np.where(labels == 5, 0, labels), labels, 1e-4)
    assert not is_alike(np.zeros_like(labels), labels, 1e-4)
    for of in (truths, ~truths):
        assert is_alike(of ^ (labels == 3), of, 1e-4)
        assert not is_alike(of ^ truths, of, 1e-4)
        assert is_alike(of[4:], of[4:], 1e-4)


TAGGER = """
<ir_version: 10, opset_import: ["" : 21]>
tagger (float[N, 8, 3] x) => (float[N, 8] scores, int64[N, 8] labels)
<float[3, 2] w = {1, -1, 2, 1, 0, 1}, int64[1] last = {2}>
{
  of_each = MatMul(x, w)
  scores = ReduceMax <keepdims = 0> (of_each, last)
  labels = ArgMax <axis = 2, keepdims = 0> (of_each)
}
"""


@pytest.mark.usefixtures("compared")
def test_a_tie_in_a_label_refuses_no_export_by_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, file, run_onnx = tmp_path / "source.onnx", tmp_path / "e.onnx", values.run_onnx
    onnx.save(onnx.parser.parse_model(TAGGER), source)

    def otherwise(places: int) -> None:
        def run(path: Path, given: dict[str, Array]) -> dict[str, Array]:
            found = run_onnx(path, given)
            found["labels"][:, :places] ^= 1
            return found

        monkeypatch.setattr(values, "run_onnx", run)

    asked = {"wrt": ["x"], "objective": "value", "method": "gradient"}
    otherwise(1)
    notes = onnxplain.export(source, file, **asked).notes
    assert not any("not checked" in note for note in notes)
    otherwise(8)
    with pytest.raises(SourceError, match="its labels differ"):
        onnxplain.export(source, file, **asked)


@pytest.fixture
def beside(tmp_path: Path) -> Callable[[Callable[[Array], dict[str, Array]]], str | None]:
    """What is noted of a file that puts out ones [N, 5] where its source answers otherwise."""

    class Ones(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 5) + 0 * x.mean((1, 2, 3)).unsqueeze(1)

    file = tmp_path / "e.onnx"
    example = torch.zeros(1, 3, 4, 4)
    onnxplain.export(Ones(), file, example=example, objective="value", method="gradient")

    def compared(answer: Callable[[Array], dict[str, Array]]) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outputs, "outputs_of_pytorch", lambda _, images: answer(images))
            return outputs.compare_outputs(file, Ones(), None, (4, 4))

    return compared


def test_a_source_that_takes_one_image_alone_or_answers_at_random(
    beside: Callable[[Callable[[Array], dict[str, Array]]], str | None],
) -> None:
    def of_one(images: Array) -> dict[str, Array]:
        if len(images) > 1:
            raise ValueError("one image")
        return {"output": np.ones((1, 5))}

    random = np.random.default_rng(0)
    assert beside(lambda images: {"output": np.ones((2, 5))}) is None
    assert beside(of_one) == outputs.ONE_ALONE
    found = beside(lambda images: {"output": random.normal(size=(2, 5))})
    assert found == "not checked: the source does not answer twice the same"
    for wrong in (np.zeros((2, 5)), np.ones((2, 4)), [[1, 1, 1, 1, -np.inf]] * 2):
        with pytest.raises(SourceError, match="output 'output' differs from that of its source"):
            beside(lambda images, y=wrong: {"output": np.asarray(y)})


class Embeds(nn.Module):
    """Without an output that is called logits, one [N, 5] among others."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.convolution(x)
        return {"hidden": y, "embeds": self.head(y.relu().mean((2, 3)))}


@pytest.mark.usefixtures("compared")
def test_logits_that_the_network_does_not_call_so_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"example": torch.zeros(1, 3, 6, 6), "method": "gradient"}
    metadata = onnxplain.export(Embeds().eval(), tmp_path / "e.onnx", **given)
    assert metadata.objective.is_class
    assert not any("not checked" in note for note in metadata.notes)
    of_source = logits.outputs_of_pytorch
    monkeypatch.setattr(
        logits,
        "outputs_of_pytorch",
        lambda *asked: {n: 2 * y for n, y in of_source(*asked).items()},
    )
    with pytest.raises(SourceError, match="its logits differ from those of its source"):
        onnxplain.export(Embeds().eval(), tmp_path / "e.onnx", **given)


class Normalised(nn.Module):
    def __init__(self, statistics: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, track_running_stats=statistics)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.norm(self.convolution(x)).relu().mean((2, 3))
        logits: Tensor = self.head(pooled)
        return logits


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("statistics", [True, False])
def test_a_batch_whose_images_are_normalised_together_is_noted(
    tmp_path: Path, statistics: bool
) -> None:
    network, example = Normalised(statistics).eval(), torch.zeros(1, 3, 6, 6)
    result = onnxplain.export(network, tmp_path / "e.onnx", example=example, method="gradient")
    assert (outputs.MIXED in result.notes) is not statistics


ENDLESS = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[N,3,4,4] image) => (float[N,5] logits)
<float[3,5] w = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14}, int64[2] axes = {2,3}>
{
  mean = ReduceMean <keepdims=0> (image, axes)
  first = ReduceMean <keepdims=0> (image)
  on = Constant <value = bool {1}> ()
  last = Loop (, on, first) <body = rounds (int64 i, bool c, float[] x)
    => (bool again, float[] y)
    { y = Sin(x)  five = Constant <value = float {5.0}> ()  again = Less(y, five) }>
  sum = Add(mean, last)
  logits = MatMul(sum, w)
}
"""


@pytest.mark.usefixtures("compared")
def test_a_loop_that_never_ends_does_not_hold_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SECONDS", 0.2)
    onnx.save(onnx.parser.parse_model(ENDLESS), tmp_path / "endless.onnx")
    result = onnxplain.export(tmp_path / "endless.onnx", tmp_path / "e.onnx", method="gradient")
    assert "not checked: it has not ended after 0.2 s, on noise" in result.notes


class InOneOperator:
    """A session in the middle of an operator, where ONNX Runtime does not look at its orders."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def run(self, names: None, given: dict[str, Array], told: onnxruntime.RunOptions) -> list[Any]:
        self.over.wait(30)
        return []


def test_an_operator_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS", 0.05)
    session = InOneOperator()
    with pytest.raises(UnfinishedError, match=r"not ended after 0\.05 s"):
        running.run(session, None, {})  # type: ignore[arg-type]
    session.over.set()


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("options", [{"wrt": "mean"}, {"objective": "value"}])
def test_nor_one_of_values_or_of_an_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setattr(running, "SECONDS", 0.2)
    onnx.save(onnx.parser.parse_model(ENDLESS), tmp_path / "endless.onnx")
    result = onnxplain.export(
        tmp_path / "endless.onnx", tmp_path / "e.onnx", method="gradient", **options
    )
    assert any(note.startswith("not checked: it has not ended") for note in result.notes)


FOLDED = f"""
<ir_version: 10, opset_import: ["" : 21]>
net (float[N,3,4,4] image) => (float[N,5] logits)
<float[3,5] w = {{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14}}, int64[2] axes = {{2,3}},
 int64[1] all = {{{1 << 20}}}>
{{
  mean = ReduceMean <keepdims=0> (image, axes)
  given = MatMul(mean, w)
  zeros = ConstantOfShape(all)
  most = ReduceMax <keepdims=0> (zeros)
  logits = Add(given, most)
}}
"""


def test_what_is_constant_is_computed_in_time(tmp_path: Path) -> None:
    """And not while the session is made, which nothing stops."""
    source, made = tmp_path / "folded.onnx", tmp_path / "made.onnx"
    onnx.save(onnx.parser.parse_model(FOLDED), source)
    options = running.session_options()
    options.optimized_model_filepath = str(made)
    onnxruntime.InferenceSession(source, options)
    assert "ReduceMax" in {node.op_type for node in onnx.load(made).graph.node}


@pytest.mark.usefixtures("compared")
def test_so_it_is_of_the_source_and_of_the_explain_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, left_out = "optimization.disable_specified_optimizers", []

    def run(session: onnxruntime.InferenceSession, *given: Any) -> list[Array]:
        left_out.append(session.get_session_options().get_session_config_entry(key))
        return running.run(session, *given)

    monkeypatch.setattr(sources, "run", run)
    monkeypatch.setattr(forward, "run", run)
    onnx.save(onnx.parser.parse_model(FOLDED), tmp_path / "folded.onnx")
    onnxplain.export(tmp_path / "folded.onnx", tmp_path / "e.onnx", method="gradient")
    assert left_out == 2 * ["ConstantFolding"]
