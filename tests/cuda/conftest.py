"""The fake CUDA, compiled once."""

from __future__ import annotations

import pytest

from onnxplain.runtime import fake_cuda


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process for which the fake CUDA is there in place of the real one."""
    if (reason := fake_cuda.missing()) is not None:
        pytest.skip(reason)
    return fake_cuda.build(tmp_path_factory.mktemp("fake-cuda"))
