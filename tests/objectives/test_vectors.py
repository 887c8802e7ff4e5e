"""Networks that end in a vector: regressions and embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

import onnxplain
from onnxplain.errors import InputError, SourceError

from .networks import close, exported, gradient, images, vector

X = images()


def test_a_number_of_a_regression() -> None:
    explainer = exported(vector(4), objective="value")
    explanation = explainer(X.numpy(), 2)
    value, expected = gradient(vector(4), X, lambda y: y[:, 2])
    close(explanation.objective, value)
    close(explanation.pullback, expected)
    assert [*explanation.outputs] == ["output", "explained_class"]


def test_what_would_lower_it() -> None:
    explainer = exported(vector(4), objective="value")
    up, down = (explainer(X.numpy(), 1, direction=sign) for sign in (1, -1))
    np.testing.assert_array_equal(up.pullback, -down.pullback)


def test_one_number_per_image_is_a_value_by_itself() -> None:
    class Age(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = vector(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x).squeeze(1)

    explainer = exported(Age().eval())
    assert explainer.metadata.objective.name == "value"
    assert "output is one number per image" in explainer.metadata.notes[0]
    close(explainer(X.numpy()).pullback, gradient(Age().eval(), X, lambda y: y)[1])


def test_an_age_is_no_class() -> None:
    explainer = exported(vector(1))
    assert explainer.metadata.objective.name == "value"
    close(explainer(X.numpy()).pullback, gradient(vector(1), X, lambda y: y[:, 0])[1])
    probable = torch.nn.Sequential(vector(1), torch.nn.Sigmoid())
    assert exported(probable).metadata.objective.is_class


class Two(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.network = vector(2 * size)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        age, angle = self.network(x).chunk(2, 1)
        return {"age": age, "angle": angle}


def test_of_two_numbers_none_is_taken_without_a_word() -> None:
    with pytest.raises(
        SourceError, match=r"value \(.*age is one number per image \(for angle inst"
    ):
        exported(Two(1).eval())
    for objective in ("value", "embedding"):
        explainer = exported(Two(3).eval(), objective=objective)
        assert "(for angle instead, say output=)" in explainer.metadata.notes[0]
    of_angle = exported(Two(3).eval(), objective="value", output="angle")
    expected = gradient(Two(3).eval(), X, lambda y: y["angle"][:, 2])[1]
    close(of_angle(X.numpy(), 2).pullback, expected)


def test_what_a_file_does_not_show_is_noted(tmp_path: Path) -> None:
    for name, ending in {"plain": torch.nn.Identity(), "probable": torch.nn.Softmax(1)}.items():
        source = tmp_path / f"{name}.onnx"
        network = torch.nn.Sequential(vector(4), ending)
        torch.onnx.export(network, (X,), source, dynamo=True, external_data=False, verbose=False)
        notes = onnxplain.export(source, tmp_path / "e.onnx", method="gradient").notes
        (output,) = [value.name for value in onnx.load(source).graph.output]
        told = f"the output '{output}' holds classes' logits; if it is an embedding or a regression"
        assert any(told in note for note in notes) == (name == "plain")


def test_several_numbers_of_one_image() -> None:
    explainer = exported(vector(4), objective="value", multi_target=True)
    explanation = explainer(X.numpy(), [[0, 3], [2, -1]])
    assert explanation.objective.shape == (2, 2)
    for column, pick in enumerate((lambda y: torch.stack([y[0, 0], y[1, 2]]), None)):
        if pick is None:
            pick = lambda y: torch.stack([y[0, 3], y[1].max()])  # noqa: E731
        close(explanation.pullback[:, column], gradient(vector(4), X, pick)[1])


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("shape", [(5,), (2, 5)], ids=str)
def test_the_similarity_to_a_query(similarity: str, shape: tuple[int, ...]) -> None:
    query = np.random.default_rng(0).standard_normal(shape)
    q = torch.from_numpy(query)
    settings = {"similarity": similarity}
    explainer = exported(vector(5), objective="embedding", settings=settings)
    explanation = explainer(X.numpy(), query=query)
    score, expected = gradient(
        vector(5),
        X,
        lambda y: (
            functional.cosine_similarity(y, q.broadcast_to(y.shape))
            if similarity == "cosine"
            else (y * q).sum(1)
        ),
    )
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    assert explanation[1].pullback.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_a_cosine_knows_no_length_of_the_query(length: float) -> None:
    """Also where its square is beyond float32."""
    explainer, query = exported(vector(5), objective="embedding"), np.array([1, -2, 0.5, 3, 0])
    found, expected = explainer(X.numpy(), query=length * query), explainer(X.numpy(), query=query)
    close(found.objective, expected.objective)
    close(found.pullback, expected.pullback)


@pytest.mark.parametrize(
    ("given", "targets", "message"),
    [
        ({}, None, "needs 'query'"),
        ({"query": np.ones(4)}, None, r"has the shape \[5\], or \[2, 5\] for 2 images, not \[4\]"),
        ({"query": [0, 1, np.nan, 0, 0]}, None, "'query' has NaN"),
        ({"query": np.zeros(5)}, None, "'query' is 0 everywhere"),
        ({"query": "cat"}, None, "'query' is an array of numbers"),
        ({"query": np.ones(5) * 1j}, None, "'query' is an array of numbers"),
        ({"query": np.full(5, 1e39)}, None, "'query' has numbers that float32 cannot hold"),
        ({"query": np.full(5, 1e-50)}, None, "'query' has numbers that float32 cannot hold"),
        ({"qery": np.ones(5)}, None, "has no input 'qery'; it takes 'query'"),
        ({"query": np.ones(5)}, 1, "has no target"),
    ],
)
def test_a_wrong_query_is_a_sentence(
    given: dict[str, object], targets: int | None, message: str
) -> None:
    explainer = exported(vector(5), objective="embedding")
    with pytest.raises(InputError, match=message):
        explainer(X.numpy(), targets, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "embeding"}, "no objective 'embeding'; did you mean embedding"),
        ({"settings": {"similarity": "dot"}}, "objective 'logit' has no settings"),
        (
            {"objective": "embedding", "settings": {"similarity": "l2"}},
            "similarity is one of cosine, dot, not 'l2'",
        ),
        ({"objective": "embedding", "settings": {"by": "dot"}}, "has no setting 'by'; it has"),
        ({"objective": "value", "output": "age"}, "no value 'age' .*; its outputs are: output"),
        ({"objective": "embedding", "multi_target": True}, "has no target to give several of"),
        ({"objective": "value", "unroll": 2}, "unroll follows a class's logit"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        exported(vector(5), **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": 5}, "target 5 is out of range: .* from 0 to 4, or from -1"),
        ({"direction": np.nan}, "'direction' has NaN"),
        ({"direction": 0}, "'direction' is 0 everywhere: 1 for what raises the number, -1 for"),
        ({"images": X.numpy() * np.nan}, "the images have NaN"),
    ],
)
def test_a_wrong_number_is_a_sentence(given: dict[str, object], message: str) -> None:
    explainer = exported(vector(5), objective="value")
    with pytest.raises(InputError, match=message):
        explainer(**{"images": X.numpy(), **given})


@pytest.mark.usefixtures("compared")
def test_the_outputs_are_compared_with_the_sources_own() -> None:
    explainer = exported(vector(5), objective="embedding")
    assert not any("not checked" in note for note in explainer.metadata.notes)


def test_a_step_climbs() -> None:
    explainer = exported(vector(5), objective="value", step=True)
    one, many = (
        onnxplain.accentuate(explainer, X.numpy(), 1, steps=2, alpha=1, norm=norm, inputs=down)
        for norm in (2.0, 2.0 + 1e-9)  # in the graph, and in numpy
        for down in ({"direction": -1},)
    )
    assert (one.after > one.before).all()
    pre = explainer.metadata.preprocessing
    mean, std = (np.reshape(numbers, (3, 1, 1)) for numbers in (pre.mean, pre.std))
    before, after = (
        -vector(5)(torch.from_numpy(((pixels + 1) / 2 - mean) / std).float())[:, 1].detach().numpy()
        for pixels in (one.start, one.end)
    )
    for found, expected in ((one.before, before), (one.after, after), (one.gain, after - before)):
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(one.end, many.end, atol=1e-4)
