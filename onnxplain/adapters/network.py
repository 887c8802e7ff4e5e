"""An explain graph as a `torch.nn.Module`, for whatever differentiates one."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from onnxplain.contract.explain import DIRECTION, Metadata
from onnxplain.errors import InputError
from onnxplain.runtime import load
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.on_device import TensorExplanation

Graph: TypeAlias = "Explainer | str | os.PathLike[str]"
"""An explain graph, opened or its file, which is opened by `onnxplain.load`."""


def opened(graph: Graph) -> Explainer:
    """
    Raises:
        BackendError, InputError: as `onnxplain.load`.
    """
    return graph if isinstance(graph, Explainer) else load(graph)


class Network(nn.Module):
    """Images float [N,C,H,W], normalised, to logits [N, classes], with a derivative.

    It is that of the file's method: of `gradient` the gradient, as of the network that the file was
    made of; of `excitation` the pullback in its place, so that SmoothGrad or integrated gradients
    of another package become those of excitation. What is differentiated is one class's logit of
    each image, times a number: the file explains one class at a time. Both passes run the graph,
    which has no second derivative: asked for one, by `create_graph=True`, it raises an InputError.

    Args:
        graph: of a classifier, whose pullback is a direction in which to change the image.

    Raises:
        InputError: it explains something else.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.explainer = opened(graph)
        metadata = self.explainer.metadata
        check_classifier(metadata, self.explainer.multi_target)
        if metadata.kind != DIRECTION:
            raise InputError(
                f"a network's derivative is a direction in which to change the image, and "
                f"{metadata.no_direction}"
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """
        Raises:
            InputError: images of another shape or dtype.
            BackendError: the runtime failed.
        """
        logits: torch.Tensor = _Logits.apply(images, self.explainer)
        return logits


def explained(explainer: Explainer, images: torch.Tensor, targets: Any = None) -> TensorExplanation:
    """What a file gives for images that may be part of a graph of PyTorch's, or lie with gaps.

    Raises:
        InputError, BackendError: as calling the explainer.
    """
    return explainer(images.detach().contiguous(), targets)


def check_classifier(metadata: Metadata, several: bool = False) -> None:
    """
    Raises:
        InputError: the file explains no classifier's logit, or several at a time.
    """
    if metadata.values or not metadata.objective.is_class:
        raise InputError(
            f"this file explains {metadata.objective.name}, and a classifier's logit is asked for"
        )
    if several:
        raise InputError("this file explains several targets at a time: export it without")


def classes_of(explainer: Explainer, targets: Any) -> Any:
    """Targets as these packages count them, -1 the last class, as a file does, where it is the
    predicted one.

    Args:
        targets: a class for all images, or one each: a list, or an array or tensor [N]; None is
            the predicted one of each.

    Raises:
        InputError: no such class.
    """
    if targets is None:
        return None
    count = explainer.backend.signature.classes
    given = np.asarray(targets.tolist() if isinstance(targets, torch.Tensor) else targets)
    if given.dtype.kind not in "iu" or given.ndim > 1:
        raise InputError(
            f"a target is the index of a class, or one for each image, not {targets!r}"
        )
    if count is not None:
        if not ((given >= -count) & (given < count)).all():
            raise InputError(f"a target is from 0 to {count - 1}, or from -{count} to -1, the last")
        given = given % count
    return given.tolist()


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, explainer: Explainer) -> torch.Tensor:
        ctx.explainer = explainer
        ctx.save_for_backward(images)
        logits: torch.Tensor = explained(explainer, images).logits
        return logits

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor, None]:
        if torch.is_grad_enabled():  # by create_graph alone; the result would be a constant
            raise InputError("an explain graph has no second derivative: create_graph=False")
        (images,), (cotangent,) = ctx.saved_tensors, cotangents
        factor, target = _one_class(cotangent)
        pullback = explained(ctx.explainer, images, target).pullback
        return factor.reshape(-1, *[1] * (images.ndim - 1)) * pullback, None


def _one_class(cotangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The only number of each row that is not 0, [N], and where it stands, int64 [N].

    Raises:
        InputError: a row has several.
    """
    if (cotangent.count_nonzero(1) > 1).any():
        raise InputError(
            "a derivative of several logits of one image is asked for, and an explain graph has "
            "that of one class's logit: differentiate logits[i, target], not a loss"
        )
    target = cotangent.abs().argmax(1)
    return cotangent.gather(1, target[:, None])[:, 0], target
