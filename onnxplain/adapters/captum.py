"""Captum's attribution methods, of an explain graph in place of a module.

`Saliency`, `InputXGradient`, `IntegratedGradients` and `NoiseTunnel` are Captum's own, whose
network is the graph: their `attribute` is Captum's, and so are its arguments. `Pullback` and
`LayerGradCam` return what the file gives.
"""

from __future__ import annotations

from typing import Any

import captum.attr
import torch
from captum.attr import NoiseTunnel

from onnxplain.adapters.network import (
    Graph,
    Network,
    check_classifier,
    classes_of,
    explained,
    opened,
)
from onnxplain.errors import InputError

__all__ = [
    "InputXGradient",
    "IntegratedGradients",
    "LayerGradCam",
    "NoiseTunnel",
    "Pullback",
    "Saliency",
]


class Saliency(captum.attr.Saliency):  # type: ignore[misc]
    """The derivative's magnitude; with `abs=False`, the derivative itself."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(Network(graph))


class InputXGradient(captum.attr.InputXGradient):  # type: ignore[misc]
    """The derivative times the image."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(Network(graph))


class IntegratedGradients(captum.attr.IntegratedGradients):  # type: ignore[misc]
    """The derivative integrated from a baseline to the image.

    A file exported with `--estimator integrated-gradients` does the same in one run: see
    `Pullback`.
    """

    def __init__(self, graph: Graph, multiply_by_inputs: bool = True) -> None:
        super().__init__(Network(graph), multiply_by_inputs)


class Pullback(captum.attr.Attribution):  # type: ignore[misc]
    """What the file gives, whatever its method and estimator.

    Args:
        graph: of a classifier.

    Raises:
        InputError: it explains something else.
    """

    def __init__(self, graph: Graph) -> None:
        self.explainer = opened(graph)
        check_classifier(self.explainer.metadata, self.explainer.multi_target)
        super().__init__(self._logits)

    def attribute(  # type: ignore[override]
        self, inputs: torch.Tensor | tuple[torch.Tensor], target: Any = None
    ) -> Any:
        """
        Args:
            inputs: float [N,C,H,W], normalised, or a tuple of it.
            target: a class for all images, or one each: a list, or a tensor [N]; -1 is the last
                one, None the predicted one.

        Returns:
            The pullback, of the images' shape ([N,1,H,W] of a map); a tuple of it for a tuple.

        Raises:
            InputError: images or targets that cannot be used.
            BackendError: the runtime failed.
        """
        images = inputs[0] if isinstance(inputs, tuple) else inputs
        targets = classes_of(self.explainer, target)
        pullback = explained(self.explainer, images, targets).pullback
        return (pullback,) if isinstance(inputs, tuple) else pullback

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = explained(self.explainer, images).logits
        return logits


class LayerGradCam(Pullback):
    """The class activation map of a file of the method gradcam, of the layer that it was exported
    with: Captum's with `relu_attributions=True`, interpolated bilinearly to the image's size.

    Raises:
        InputError: another method's file.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        method = self.explainer.metadata.method
        if method != "gradcam":
            raise InputError(f"this file's method is {method}: export it with method='gradcam'")

    def attribute(
        self,
        inputs: torch.Tensor | tuple[torch.Tensor],
        target: Any = None,
        *,
        relu_attributions: bool = True,
    ) -> Any:
        """The map, [N,1,H,W], or a tuple of it for a tuple; arguments and errors are `Pullback`'s.

        Args:
            relu_attributions: what lowers the logit is 0 in the file: False, Captum's default, is
                refused.
        """
        if not relu_attributions:
            raise InputError("a file's map has what raises the logit alone: relu_attributions=True")
        return super().attribute(inputs, target)
