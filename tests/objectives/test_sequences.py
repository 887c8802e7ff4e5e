"""Networks that end in a sequence: recognisers of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxplain.errors import InputError, SourceError

from .networks import close, exported, gradient, images, seeded, trunk

X = images()


class Recogniser(nn.Module):
    """Columns of the image are the steps, of a small CTC network."""

    def __init__(self, time_first: bool, ending: nn.Module | None, lstm: bool) -> None:
        super().__init__()
        self.trunk, self.time_first, self.is_lstm = trunk(), time_first, lstm
        self.lstm = nn.LSTM(6, 5, bidirectional=True, batch_first=not time_first)
        self.row = nn.Sequential(nn.Linear(6, 10), nn.Tanh())
        self.head, self.ending = nn.Linear(10, 7), ending or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        columns = self.trunk(x).mean(2)  # [N, C, T]
        rows = columns.permute((2, 0, 1) if self.time_first else (0, 2, 1))
        return self.ending(self.head(self.lstm(rows)[0] if self.is_lstm else self.row(rows)))


def network(
    time_first: bool = False, ending: nn.Module | None = None, lstm: bool = False
) -> nn.Module:
    return seeded(lambda: Recogniser(time_first, ending, lstm))


def path(y: Tensor) -> Tensor:
    best, classes = y.max(2)
    read = classes != 0
    read = torch.where(read.any(1, keepdim=True), read, True)
    return (best * read).sum(1) / read.sum(1)


CASES: dict[str, tuple[dict[str, int], Callable[[Tensor], Tensor]]] = {
    "class and position": ({"targets": 3, "position": 5}, lambda y: y[:, 5, 3]),
    "predicted at a position": ({"targets": -1, "position": 2}, lambda y: y[:, 2].max(1)[0]),
    "runner-up": ({"targets": -2, "position": 0}, lambda y: y[:, 0].topk(2)[0][:, 1]),
    "what is read": ({}, path),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("time_first", [False, True], ids=["NTC", "TNC-lstm-log-softmax"])
def test_a_step_and_the_path(case: str, time_first: bool) -> None:
    given, objective = CASES[case]
    ending = nn.LogSoftmax(2) if time_first else None
    source, options = network(time_first, ending, time_first), {"labels": list("-abcdef")}
    explainer = exported(source, objective="sequence", **options)
    entry = explainer.metadata.objective
    axes = ["time", "batch", "class"] if time_first else ["batch", "time", "class"]
    assert (entry.name, list(entry.axes["output"])) == ("sequence", axes)
    explanation = explainer(X.numpy(), **given)  # type: ignore[arg-type]
    score, expected = gradient(
        network(time_first, lstm=time_first),
        X,
        lambda y: objective(y.transpose(0, 1) if time_first else y),
    )
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    if "position" in given:
        with torch.no_grad():
            y = network(time_first, lstm=time_first)(X)
        row = (y.transpose(0, 1) if time_first else y)[:, given["position"]].argsort(1)
        target = given["targets"]
        expected_class = [target] * 2 if target >= 0 else row[:, target].tolist()
        assert explanation.targets.tolist() == expected_class
        assert explanation.names == ["-abcdef"[index] for index in expected_class]
    else:
        assert explanation.names == ["what is read"] * 2


@pytest.mark.parametrize("copies", [1, 2])
def test_a_softmax_that_more_comes_behind_is_explained_at_its_input(copies: int) -> None:
    """And what comes behind it moves its elements alone: the file's output stays the source's."""
    behind = [nn.Softmax(2), nn.Unflatten(2, (7, 1)), nn.Flatten(2)][: 2 * copies - 1]
    source = network(ending=nn.Sequential(nn.Flatten(0, 1), nn.Unflatten(0, (-1, 8)), *behind))
    explainer = exported(source, objective="sequence")
    assert explainer.metadata.objective.activation == "softmax"
    explanation = explainer(X.numpy(), 3, position=5)
    score, expected = gradient(network(), X, lambda y: y[:, 5, 3])
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    with torch.no_grad():
        close(explanation.outputs["output"], source(X).numpy())


@pytest.mark.parametrize(
    "source",
    [lambda: network(ending=nn.Softmax(2)), lambda: network(True)],
    ids=["softmax", "time-first"],
)
def test_what_shows_a_sequence(source: Callable[[], nn.Module]) -> None:
    assert exported(source()).metadata.objective.name == "sequence"


def test_rows_of_numbers_are_no_sequence_by_themselves() -> None:
    message = (
        r"choose with objective=: .*sequence \(.*output is a sequence of 8 steps with 7 classes"
    )
    with pytest.raises(SourceError, match=message):
        exported(network())


def test_batches_of_a_sequence_with_time_first() -> None:
    explainer = exported(network(True))
    x = images(5).numpy()
    whole, parts = explainer(x), explainer(x, batch_size=2)
    assert whole.outputs["output"].shape == (8, 5, 7)
    for found, expected in (
        (parts.outputs["output"], whole.outputs["output"]),
        (parts.pullback, whole.pullback),
        (whole[1:3].outputs["output"], whole.outputs["output"][:, 1:3]),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position": 8}, "'position' is from 0 to 7, or -1: the step"),
        ({"position": 1.5}, "'position' is a whole number"),
        ({"position": float("nan")}, "'position' has NaN"),
        ({"targets": 7}, "target 7 is out of range"),
    ],
)
def test_a_wrong_step_is_a_sentence(given: dict[str, Any], message: str) -> None:
    explainer = exported(network(), objective="sequence")
    with pytest.raises(InputError, match=message):
        explainer(X.numpy(), **given)


def test_several_targets() -> None:
    options = {"objective": "sequence", "labels": list("-abcdef")}
    explainer = exported(network(), multi_target=True, **options)
    both = explainer(X.numpy(), [[3, -1], [0, -2]], position=4)
    columns = (
        lambda y: torch.stack([y[0, 4, 3], y[1, 4, 0]]),
        lambda y: torch.stack([y[0, 4].max(), y[1, 4].topk(2)[0][1]]),
    )
    for column, objective in enumerate(columns):
        score, expected = gradient(network(), X, objective)
        close(both.objective[:, column], score)
        close(both.pullback[:, column], expected)
    with torch.no_grad():
        y = network()(X)
    runner_up = int(y[1, 4].argsort()[-2])
    assert both.targets.tolist() == [[3, int(y[0, 4].argmax())], [0, runner_up]]


def test_time_is_never_taken_for_a_batch() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(True)

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x).flatten(0, 1)  # [T · N, classes]

    for objective in (None, "logit"):
        with pytest.raises(SourceError, match=r"batch"):
            exported(Flat().eval(), objective=objective)


@pytest.mark.parametrize("position", [8, 2.5, [0, 1, 2]], ids=str)
def test_a_wrong_position_is_an_error(position: object) -> None:
    explainer = exported(network(), objective="sequence")
    with pytest.raises(InputError, match="'position'"):
        explainer(X.numpy(), position=position)
