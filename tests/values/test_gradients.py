"""Explanations of every kind of input, against PyTorch's gradients in float64 and its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.reference.pytorch import explain

from .networks import Fused, Text, seeded, series, tables, volumes

Array = npt.NDArray[Any]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def gradients(network: Callable[..., Tensor], by: list[Tensor], classes: list[int]) -> list[Array]:
    """Of the classes' logits, in float64."""
    given = [x.double().requires_grad_() for x in by]
    logits = network(*given)
    chosen = logits[range(len(classes)), classes].sum()
    return [g.numpy() for g in torch.autograd.grad(chosen, given)]


def close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= 1e-4, f"{error:.1e}"


@pytest.mark.parametrize(
    ("make", "shape", "kind"),
    [
        (volumes, (2, 1, 6, 8, 8), "volume"),
        (series, (2, 2, 30), "series"),
        (tables, (2, 5), "table"),
    ],
)
def test_an_input_that_is_no_picture(
    make: Callable[[], nn.Module], shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    network, x = seeded(make), noise(*shape)
    onnxplain.export(network, tmp_path / "e.onnx", method="gradient", example=x)
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    (name,) = explainer.metadata.values.inputs
    assert explainer.metadata.values.explained[name].kind == kind
    explanation = explainer({name: x.numpy()}, [0, 2])
    (expected,) = gradients(network.double(), [x], [0, 2])
    close(explanation.pullback, expected)
    np.testing.assert_array_equal(explanation.targets, [0, 2])


@pytest.mark.parametrize(
    ("make", "shape"), [(volumes, (2, 1, 6, 8, 8)), (series, (2, 2, 30)), (tables, (2, 5))]
)
def test_a_regression_is_found_by_itself(
    make: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    network, x = seeded(lambda: nn.Sequential(make(), nn.Linear(3, 1))), noise(*shape)
    onnxplain.export(network, tmp_path / "e.onnx", method="gradient", example=x)
    explanation = onnxplain.load(tmp_path / "e.onnx", "cpu")({"input": x.numpy()})
    assert explanation.explained.name == "value"
    (expected,) = gradients(network.double(), [x], [0, 0])
    close(explanation.pullback, expected)


@pytest.mark.parametrize("objective", ["segment", "detection"])
def test_what_reads_an_image_does_not_fit_a_table(objective: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not explained by an image"):
        onnxplain.export(
            seeded(tables), tmp_path / "e.onnx", example=noise(2, 5), objective=objective
        )


def test_excitation_of_a_volume_is_the_references(tmp_path: Path) -> None:
    network, x = seeded(volumes), noise(2, 1, 6, 8, 8)
    onnxplain.export(network, tmp_path / "e.onnx", example=x)
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    explanation = explainer({"input": x.numpy()}, [0, 2])
    _, right = explain(network.double(), x.double(), torch.tensor([0, 2]), "excitation")
    close(explanation.pullback, right.numpy())


def text() -> tuple[Text, dict[str, Tensor]]:
    network = seeded(Text)
    assert isinstance(network, Text)
    ids = torch.tensor([[1, 4, 9, 0, 2], [7, 7, 3, 0, 0]])
    return network, {"ids": ids, "mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


def as_arrays(given: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: x.numpy() for name, x in given.items()}


def test_tokens_are_explained_at_their_embedding(tmp_path: Path) -> None:
    network, given = text()
    shorter = {name: x[:1, :4] for name, x in given.items()}
    metadata = onnxplain.export(network, tmp_path / "e.onnx", method="gradient", example=shorter)
    assert metadata.notes[0].startswith("explained by embedding, the embedding of ids")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    assert [*explainer.metadata.values.inputs] == ["ids", "mask"]
    explanation = explainer(as_arrays(given), [1, 2])
    network.double()
    embedded = network.embedding(given["ids"])
    (expected,) = gradients(lambda x: network.of_embedded(x, given["mask"]), [embedded], [1, 2])
    close(explanation.pullback, expected)
    assert not explanation.pullback[1, 3:].any()
    logits = network(**given).detach().numpy()
    np.testing.assert_allclose(explanation.logits, logits, atol=1e-5)


def test_several_inputs_stay_and_each_is_explained(tmp_path: Path) -> None:
    network, given = seeded(Fused), {"picture": noise(2, 3, 8, 8), "row": noise(2, 5)}
    onnxplain.export(
        network, tmp_path / "e.onnx", method="gradient", example=given, wrt=["row", "picture"]
    )
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    explanation = explainer(as_arrays(given), [0, 1])
    expected = gradients(network.double(), [*given.values()], [0, 1])
    assert [*explanation.pullbacks] == ["row", "picture"]
    close(explanation.pullbacks["picture"], expected[0])
    close(explanation.pullbacks["row"], expected[1])


def test_a_feature_map_by_its_modules_path(tmp_path: Path) -> None:
    network, given = seeded(Fused), {"picture": noise(2, 3, 8, 8), "row": noise(2, 5)}
    assert isinstance(network, Fused)
    onnxplain.export(network, tmp_path / "e.onnx", method="gradient", example=given, wrt="see.0")
    explanation = onnxplain.load(tmp_path / "e.onnx", "cpu")(as_arrays(given), [0, 1])
    network.double()

    def rest(z: Tensor) -> Tensor:
        seen = network.see[1:](z)
        return network.head(torch.cat([seen, network.read(given["row"].double())], 1))

    features = network.see[0](given["picture"].double()).detach()
    close(explanation.pullback, gradients(rest, [features], [0, 1])[0])


def test_several_targets_of_each_sample(tmp_path: Path) -> None:
    network, x = seeded(tables), noise(2, 5)
    onnxplain.export(network, tmp_path / "e.onnx", method="gradient", example=x, multi_target=True)
    explanation = onnxplain.load(tmp_path / "e.onnx", "cpu")({"input": x.numpy()}, [[0, 1], [2, 0]])
    assert explanation.pullback.shape == (2, 2, 5)
    for column, classes in enumerate(([0, 2], [1, 0])):
        close(explanation.pullback[:, column], gradients(network.double(), [x], classes)[0])


def test_times_image_is_a_product_with_the_value(tmp_path: Path) -> None:
    network, x = seeded(tables), noise(2, 5)
    plain, product = tmp_path / "e.onnx", tmp_path / "p.onnx"
    onnxplain.export(network, plain, method="gradient", example=x)
    onnxplain.export(network, product, method="gradient", example=x, times_image=True)
    found, times = (onnxplain.load(p, "cpu")({"input": x.numpy()}) for p in (plain, product))
    np.testing.assert_allclose(times.pullback, found.pullback * x.numpy(), rtol=1e-6)
    assert times.kind == "product"


def test_another_objective_of_a_value_within(tmp_path: Path) -> None:
    network, given = text()
    onnxplain.export(
        network, tmp_path / "e.onnx", method="gradient", example=given, objective="value"
    )
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    up, down = (explainer(as_arrays(given), 1, direction=sign) for sign in (1, -1))
    np.testing.assert_array_equal(up.pullback, -down.pullback)
    np.testing.assert_allclose(up.objective, up.outputs["output"][:, 1], rtol=1e-6)


class Tagger(nn.Module):
    """Tokens [N, T] → logits [N, T, 3], each of its neighbours too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.beside = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.of_embedded(self.embedding(ids))

    def of_embedded(self, x: Tensor) -> Tensor:
        y: Tensor = self.beside(x.tanh().transpose(1, 2))
        return y.transpose(1, 2)


def test_an_open_length_is_fixed_by_name(tmp_path: Path) -> None:
    network, file = seeded(Tagger), tmp_path / "e.onnx"
    assert isinstance(network, Tagger)
    given: dict[str, Any] = {"example": torch.ones(1, 4, dtype=torch.long), "method": "gradient"}
    with pytest.raises(SourceError, match=r"\[N, length, 3\]; .*open sizes.* sizes= fixes: length"):
        onnxplain.export(network, file, objective="sequence", **given)
    onnxplain.export(network, file, objective="sequence", sizes={"length": 7}, **given)
    explainer = onnxplain.load(file, "cpu")
    ids = torch.tensor([[1, 4, 9, 0, 2, 6, 6], [7, 7, 3, 0, 0, 10, 8]])
    explanation = explainer({"ids": ids.numpy()}, 2, position=5)
    embedded = network.double().embedding(ids)
    (expected,) = gradients(lambda x: network.of_embedded(x)[:, 5], [embedded], [2, 2])
    close(explanation.pullback, expected)
    assert onnxplain.verify(file, network.float()).passed
    for wrong, message in (({"len": 7}, "did you mean length"), ({"length": 0}, "not 0")):
        with pytest.raises(SourceError, match=message):
            onnxplain.export(network, file, objective="sequence", sizes=wrong, **given)


def test_sizes_of_an_image_are_not_by_name(tmp_path: Path) -> None:
    image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SourceError, match="an image's is size="):
        onnxplain.export(image, tmp_path / "e.onnx", example=noise(1, 3, 4, 4), sizes={"batch": 1})


class TimeFirst(nn.Module):
    """[T, N, 4] → [T, N, 5] or, of the last step, [N, 5]."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(4, 5), last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y[-1] if self.last else y


class Attention(nn.Module):
    """[T, N, 4] → [T, 3], of one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.attention(x, x, x)[0]).mean(1)
        return y


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeFirst(False), r"first axis of the example \[6, 2, 4\] is no batch"),
        (lambda: TimeFirst(True), r"\[2, 5\]; nothing shows which axis of .* the batch is"),
        (Attention, "logits of a sample depend on the others of its batch"),
    ],
    ids=["lstm", "last", "attention"],
)
def test_time_is_never_taken_for_a_batch(
    make: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(
            seeded(make), tmp_path / "e.onnx", method="gradient", example=noise(6, 2, 4)
        )


class Shifted(nn.Module):
    """A picture and a row of a table → a map of 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.read = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(5, 3)

    def forward(self, picture: Tensor, row: Tensor) -> Tensor:
        y: Tensor = self.see(picture) * self.read(row)[:, :, None, None]
        return y


@pytest.mark.parametrize("wrt", ["picture", "row", "read"])
def test_a_map_of_the_picture_is_explained_by_what_stands_beside_it(
    wrt: str, tmp_path: Path
) -> None:
    network, given = seeded(Shifted), {"picture": noise(2, 3, 8, 8), "row": noise(2, 5)}
    options: dict[str, Any] = {"objective": "segment", "method": "gradient", "example": given}
    onnxplain.export(network, tmp_path / "e.onnx", wrt=wrt, **options)
    region = np.zeros((8, 8))
    region[2:4, 1:7] = 1
    explanation = onnxplain.load(tmp_path / "e.onnx", "cpu")(as_arrays(given), 1, region=region)

    def mean(picture: Tensor, row: Tensor) -> Tensor:
        y = network(picture, row) * torch.from_numpy(region)
        return y.sum((2, 3)) / region.sum()

    network.double()
    by = {**dict(zip(given, gradients(mean, [*given.values()], [1, 1]), strict=True))}
    with torch.no_grad():
        of_class = (network.see(given["picture"].double()) * torch.from_numpy(region)).sum((2, 3))
    by["read"] = np.eye(3)[[1, 1]] * of_class.numpy() / region.sum()
    close(explanation.pullback, by[wrt])


@pytest.mark.parametrize("ending", [nn.Identity(), nn.Sigmoid()])
def test_a_convolutions_channels_are_the_classes(ending: nn.Module, tmp_path: Path) -> None:
    convolution = seeded(lambda: nn.Conv1d(1, 4, 5, padding=2))
    options: dict[str, Any] = {"objective": "sequence", "example": noise(1, 1, 20)}
    network = nn.Sequential(convolution, ending)
    onnxplain.export(network, tmp_path / "e.onnx", method="gradient", **options)
    explainer, x = onnxplain.load(tmp_path / "e.onnx", "cpu"), noise(2, 1, 20)
    assert explainer.metadata.objective.settings["layout"] == "NCT"
    explanation = explainer({"input": x.numpy()}, 3, position=7)
    (expected,) = gradients(lambda x: convolution.double()(x)[:, :, 7], [x], [3, 3])
    close(explanation.pullback, expected)


@pytest.mark.usefixtures("compared")
def test_a_module_of_halves_is_compared(tmp_path: Path) -> None:
    network = seeded(tables).half()
    metadata = onnxplain.export(network, tmp_path / "e.onnx", example=noise(2, 5).half())
    assert not any("not checked" in note for note in metadata.notes)
