"""Pictures of every kind of value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from onnxplain.contract.explain import DIRECTION, PRODUCT
from onnxplain.contract.values import (
    KINDS,
    NUMBERS,
    PICTURE,
    SERIES,
    TABLE,
    TOKENS,
    VOLUME,
    ExplainedValue,
    Taken,
    Values,
)
from onnxplain.errors import InputError
from onnxplain.runtime.pictures.values import Shown
from onnxplain.runtime.values import ValuesExplanation

Array = npt.NDArray[Any]

SHAPES = {
    PICTURE: (3, 8, 8),
    VOLUME: (1, 4, 6, 5),
    SERIES: (2, 30),
    TABLE: (5,),
    TOKENS: (7, 4),
    NUMBERS: (3, 2, 2),
}


def explained(
    kind: str, pullback: Array, value: Array | None = None, of: str = DIRECTION, targets: int = 0
) -> ValuesExplanation:
    """One value `x` of two samples, for one target each or for several."""
    n = len(pullback)
    name = "x" if value is not None else ""
    given = {} if value is None else {"x": value}
    return ValuesExplanation(
        np.zeros((n, 3), np.float32),
        {"x": pullback},
        np.zeros((n, targets) if targets else n, np.int64),
        given,
        Values({"x": Taken(kind)}, {"x": ExplainedValue(kind, "pullback", name)}),
        ("a", "b", "c"),
        kind=of,
    )


def noise(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def coloured(picture: Image.Image) -> bool:
    pixels = np.asarray(picture).astype(int)
    return bool((pixels.max(-1) - pixels.min(-1) > 60).any())


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind: str, known: bool) -> None:
    pullback = noise(2, *SHAPES[kind])
    value = noise(2, *SHAPES[kind]) if known else None
    if kind == TOKENS and known:
        value = np.arange(14).reshape(2, 7)
    one, two = (explained(kind, pullback, value)[:n].draw() for n in (1, 2))
    assert one.width == two.width
    assert one.height < two.height
    assert coloured(two)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pullback_of_zeros_is_drawn(kind: str) -> None:
    explained(kind, np.zeros((1, *SHAPES[kind])), None).draw()


def test_targets_stand_below_each_other() -> None:
    pullback = noise(1, 3, 5)
    several = explained(TABLE, pullback, noise(1, 5), targets=3)
    assert several.draw().height > 2 * explained(TABLE, pullback[:, 0], noise(1, 5)).draw().height


def test_a_series_is_red_where_it_speaks_for_the_target() -> None:
    pullback = np.zeros((1, 1, 40))
    pullback[..., :20], pullback[..., 20:] = 1, -1
    pixels = np.asarray(explained(SERIES, pullback, noise(1, 1, 40)).draw()).astype(int)[40:]
    red, blue = (pixels[..., i] - pixels[..., 2 - i] > 100 for i in (0, 2))
    middle = pixels.shape[1] // 2
    assert red[:, :middle].any()
    assert not red[:, middle + 20 :].any()
    assert blue[:, middle + 20 :].any()


def test_slices_go_through_the_most_relevant_place() -> None:
    pullback, value = np.zeros((1, 1, 4, 6, 5)), np.zeros((1, 1, 4, 6, 5))
    pullback[0, 0, 2, 3, 1], value[0, 0, 2] = 5, 1
    bright = np.asarray(explained(VOLUME, pullback, value).draw())
    other = np.asarray(explained(VOLUME, pullback, np.roll(value, 1, 2)).draw())
    assert bright.shape == other.shape
    assert not np.array_equal(bright, other)


@pytest.mark.parametrize(("of", "expected"), [(DIRECTION, 5.0), (PRODUCT, -1.0)])
def test_parts_of_a_token_add_up_only_where_they_may(of: str, expected: float) -> None:
    shown = Shown("x", TOKENS, np.array([[3.0, -4.0]]), signed=of == PRODUCT)
    np.testing.assert_allclose(shown.over(-1), [expected])


@pytest.mark.parametrize(
    "names",
    [
        ["the", "cat", "sat", "on", "a", "mat", "."],
        [["the", "cat", "sat", "on", "a", "mat", "."], list("abcdefg")],
        {"x": ["the", "cat", "sat", "on", "a", "mat", "a word far too long for the page" * 9]},
    ],
)
def test_tokens_have_names(names: Sequence[Any], tmp_path: Path) -> None:
    explanation = explained(TOKENS, noise(2, 7, 4), np.arange(14).reshape(2, 7))
    explanation.save(tmp_path / "why.png", names=names)
    assert Image.open(tmp_path / "why.png").width > 600
    assert not np.array_equal(explanation.draw(names), explanation.draw())


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_tokens_of_another_number_name_nothing(shape: tuple[int, ...]) -> None:
    pullback = noise(1, *shape, 4)
    less = explained(TOKENS, pullback, np.arange(5)[None])
    np.testing.assert_array_equal(less.draw(), explained(TOKENS, pullback).draw())


def test_names_of_others_are_a_sentence() -> None:
    with pytest.raises(InputError, match="2 names for the 5 entries of 'x'"):
        explained(TABLE, noise(1, 5)).draw(["age", "income"])


def test_more_columns_than_bars_are_counted() -> None:
    assert explained(TABLE, noise(1, 200)).draw().height < 1100


def test_a_notebook_shows_the_first_samples() -> None:
    assert explained(TABLE, noise(9, 5))._repr_png_().startswith(b"\x89PNG")
