"""An explain graph and its randomised one, as Quantus's randomisation tests ask for networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnxplain.evaluation.subject import Subject

Array = NDArray[Any]


class Networks(nn.Module):
    """What Quantus's model-parameter randomisation tests call of its `ModelInterface`, of a network
    that is randomised in one step; and the `torch.nn.Module` that they take this step for.

    Args:
        subject: whose explanations are asked for.
        softmax: whether probabilities are asked for, not logits.
    """

    random_layer_generator_length = 1

    def __init__(self, subject: Subject, softmax: bool) -> None:
        super().__init__()
        self.subject, self._softmax = subject, softmax
        self.eval()  # which Quantus asks of what it wraps

    def get_model(self) -> Networks:
        return self

    def get_random_layer_generator(self, **_: Any) -> Iterator[tuple[str, Networks]]:
        yield "every layer", Networks(self.subject.randomised(), self._softmax)

    def predict(self, x: Array, **_: Any) -> Array:
        return np.asarray(self.subject.asked(self._softmax)(x))

    def shape_input(self, x: Array, shape: Sequence[int], **_: Any) -> Array:
        return x.reshape(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.subject.logits(x.numpy()))
