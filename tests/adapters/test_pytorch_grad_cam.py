"""pytorch-grad-cam's call, of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_grad_cam
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
)

import onnxplain
from onnxplain.adapters.pytorch_grad_cam import GradCAM
from onnxplain.errors import InputError

from .small import X, small_network


def test_the_maps_are_pytorch_grad_cams(tmp_path: Path) -> None:
    network = small_network()
    # At the image's size there is nothing to interpolate, which the two do in different ways.
    onnxplain.export(network, tmp_path / "x.onnx", example=X, method="gradcam", layer="0")
    targets = [ClassifierOutputTarget(2), ClassifierOutputTarget(0)]
    with (
        GradCAM(tmp_path / "x.onnx") as ours,
        pytorch_grad_cam.GradCAM(network, [network[0]]) as theirs,
    ):
        for chosen in (targets, None):
            found, right = ours(X, chosen), theirs(X, chosen)
            assert right.max() > 0.9
            np.testing.assert_allclose(found, right, atol=1e-5)
        assert ours.outputs is not None
        np.testing.assert_allclose(ours.outputs, network(X).detach(), atol=1e-5)
        with pytest.raises(InputError, match=r"targets are ClassifierOutputTarget\(index\)"):
            ours(X, [lambda y: y.sum()] * 2)
        other = [ClassifierOutputSoftmaxTarget(2), BinaryClassifierOutputTarget(0)]
        with pytest.raises(InputError, match="a file explains a class's logit"):
            ours(X, other)


def test_a_file_of_another_method(tmp_path: Path) -> None:
    onnxplain.export(small_network(), tmp_path / "x.onnx", example=X, method="gradient")
    with pytest.raises(InputError, match="gradient gives no class activation map"):
        GradCAM(tmp_path / "x.onnx")
