"""The fake CUDA, as tests/cuda has it."""

from ..cuda.conftest import environment

__all__ = ["environment"]
