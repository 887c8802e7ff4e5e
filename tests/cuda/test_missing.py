"""What is said where the fake CUDA cannot be used."""

from __future__ import annotations

import pytest

from onnxplain.runtime import fake_cuda


@pytest.mark.usefixtures("environment")
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cuda, "_REAL", ("cudart", "curandom"))
    assert fake_cuda.missing() == (
        'CUDA\'s libcurandom is not installed: pip install "onnxplain[cuda]"'
    )
