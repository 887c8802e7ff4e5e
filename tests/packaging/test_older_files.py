"""Files that older releases wrote explain as they did: docs/format.md promises it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxplain

from .files.make import photographs

FILES = sorted((Path(__file__).parent / "files").glob("*/*.onnx"))


def test_every_minor_release_left_some() -> None:
    major, minor = map(int, onnxplain.__version__.split(".")[:2])
    assert major == 0  # from 1.0 on, those of 0.x too
    assert {path.parent.name for path in FILES} == {f"0.{n}" for n in range(1, minor + 1)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_explains_as_it_did(path: Path) -> None:
    explanation = onnxplain.load(path, "cpu")(list(photographs()))
    answers = np.load(path.with_suffix(".npz"))
    for name in answers.files:
        now, then = np.asarray(getattr(explanation, name)), answers[name]
        assert now.shape == then.shape
        assert np.abs(then).max() > 0
        np.testing.assert_allclose(now, then, rtol=1e-3, atol=1e-5 * np.abs(then).max())
