"""What stands in the place of another package's class is called as that is: by inspection."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import Mock

import captum.attr
import pytest
import pytorch_grad_cam
import transformers

from onnxplain.adapters import captum as adapted
from onnxplain.adapters import quantus
from onnxplain.adapters.huggingface import ImageExplanationPipeline
from onnxplain.adapters.pytorch_grad_cam import GradCAM

OURS_INSTEAD = {"forward_func", "model", "layer", "target_layers", "device_ids"}
"""What says which network and where: of a file, the file."""

NOT_OF_A_FILE = {
    "additional_forward_args": "a file's network takes images alone",
    "attribute_to_layer_input": "the map is of the layer's output",
    "grad_kwargs": "nothing is differentiated",
    "attr_dim_summation": "the map sums over channels",
    "aug_smooth": "is an estimator's",
    "eigen_smooth": "is a method's, eigengradcam",
    "reshape_transform": "tokens are the file's",
    "uses_gradients": "nothing is differentiated",
    "compute_input_gradient": "nothing is differentiated",
    "detach": "nothing is differentiated",
    "tpu": "runs elsewhere",
}
"""Arguments of theirs that say nothing of a file, and why."""


def parameters(function: Any) -> list[inspect.Parameter]:
    named = inspect.signature(function).parameters.values()
    return [one for one in named if one.name != "self" and one.name not in OURS_INSTEAD]


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients"])
def test_captums_own_are_called_as_captums(name: str) -> None:
    ours, theirs = getattr(adapted, name), getattr(captum.attr, name)
    assert inspect.signature(ours.attribute) == inspect.signature(theirs.attribute)
    own = [one for one in parameters(ours.__init__) if one.name != "graph"]
    assert [(one.name, one.default) for one in own] == [
        (one.name, one.default) for one in parameters(theirs.__init__)
    ]
    assert adapted.NoiseTunnel is captum.attr.NoiseTunnel


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adapted.Pullback.attribute, captum.attr.Saliency.attribute),
        (adapted.LayerGradCam.attribute, captum.attr.LayerGradCam.attribute),
        (GradCAM.__call__, pytorch_grad_cam.GradCAM.__call__),
    ],
)
def test_the_first_arguments_are_theirs_and_the_others_have_their_names(
    ours: Any, theirs: Any
) -> None:
    """A call that names or places them goes on as it is; what says nothing of a file is known."""
    found, right = ([one.name for one in parameters(each)] for each in (ours, theirs))
    common = [name for name in right if name in found]
    assert found == common
    assert found[:2] == right[:2]
    assert {*right} - {*found} <= {*NOT_OF_A_FILE, "abs"}
    defaults = {one.name: one.default for one in parameters(theirs)}
    for one in parameters(ours):
        if one.name != "relu_attributions":  # a file has True alone
            assert defaults[one.name] in (one.default, inspect.Parameter.empty)


def test_grad_cam_is_one_in_a_with_as_theirs() -> None:
    for name in ("__enter__", "__exit__", "__call__"):
        assert callable(getattr(GradCAM, name))
        assert callable(getattr(pytorch_grad_cam.GradCAM, name))


def test_quantus_gives_an_explain_func_what_ours_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`explain_func(model=…, inputs=…, targets=…, **explain_func_kwargs)`, as its own."""
    theirs = pytest.importorskip("quantus").explain
    monkeypatch.setattr(quantus, "opened", Mock())
    monkeypatch.setattr(quantus, "check_classifier", Mock())
    ours = quantus.explain_func("any.onnx")
    kinds = [
        [(one.name, one.kind) for one in inspect.signature(each).parameters.values()][:3]
        for each in (ours, theirs)
    ]
    assert kinds[0] == kinds[1]
    assert any(one.kind is one.VAR_KEYWORD for one in inspect.signature(ours).parameters.values())


def test_the_pipeline_is_transformers_own() -> None:
    theirs = transformers.ImageClassificationPipeline
    assert issubclass(ImageExplanationPipeline, theirs)
    assert inspect.signature(ImageExplanationPipeline.__call__) == inspect.signature(
        theirs.__call__
    )
    for name in ("preprocess", "_sanitize_parameters"):
        ours = inspect.signature(getattr(ImageExplanationPipeline, name)).parameters
        right = inspect.signature(getattr(theirs, name)).parameters
        takes_all = any(one.kind is one.VAR_KEYWORD for one in ours.values())
        assert takes_all or list(ours) == list(right)
