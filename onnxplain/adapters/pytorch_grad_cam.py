"""The call of pytorch-grad-cam's methods, of an explain graph in place of a module and layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from onnxplain.adapters.network import Graph, check_classifier, classes_of, explained, opened
from onnxplain.errors import InputError


class GradCAM:
    """A class activation map, by the method and of the layers that the file was exported with.

    As pytorch-grad-cam's classes are used: `cam(input_tensor, targets)`, within a `with` or not.

    Args:
        graph: of a classifier, exported with a method that gives maps.

    Raises:
        InputError: it gives something else.
    """

    def __init__(self, graph: Graph) -> None:
        self.explainer = opened(graph)
        metadata = self.explainer.metadata
        check_classifier(metadata, self.explainer.multi_target)
        if not metadata.is_map:
            raise InputError(
                f"{metadata.method} gives no class activation map: export with "
                "method='gradcam', or another that does"
            )
        self.outputs: torch.Tensor | None = None

    def __call__(
        self, input_tensor: torch.Tensor, targets: Sequence[Any] | None = None
    ) -> NDArray[np.float32]:
        """
        Args:
            input_tensor: float [N,C,H,W], normalised.
            targets: a `ClassifierOutputTarget` of each image; None takes the predicted classes.

        Returns:
            The maps, [N,H,W], from 0 to 1 each. The logits are in `outputs`.

        Raises:
            InputError: images or targets that cannot be used.
            BackendError: the runtime failed.
        """
        found = explained(self.explainer, input_tensor, self._classes(targets))
        self.outputs = found.logits
        of_layer = scale_cam_image(found.pullback[:, 0].numpy(force=True))
        maps: NDArray[np.float32] = scale_cam_image(of_layer)  # as it does of several layers' mean
        return maps

    def __enter__(self) -> GradCAM:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _classes(self, targets: Sequence[Any] | None) -> Any:
        if targets is None:
            return None
        if not all(isinstance(target, ClassifierOutputTarget) for target in targets):
            raise InputError(
                "a file explains a class's logit: targets are ClassifierOutputTarget(index), one "
                "for each image"
            )
        return classes_of(self.explainer, [int(target.category) for target in targets])
