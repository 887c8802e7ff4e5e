"""What users call things: other spellings of names, and other names, mean what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torchvision

from onnxplain.contract import names
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.export.estimators import ESTIMATORS
from onnxplain.export.methods import METHODS, get_method
from onnxplain.export.methods.layer_rules import RULES
from onnxplain.export.objectives import OBJECTIVES
from onnxplain.export.pipeline import export
from onnxplain.export.registry import Registry
from onnxplain.export.sources.source import torch_network
from onnxplain.export.validity import method_of
from onnxplain.networks import timm_names, torchvision_names
from onnxplain.suggest import spelled, squeezed


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("grad-cam", "gradcam"),
        ("Grad_CAM", "gradcam"),
        ("GradCAM++", "gradcam++"),
        ("gradcampp", "gradcam++"),
        ("guided-backprop", "guided"),
        ("GuidedBackprop", "guided"),
        ("Saliency", "gradient"),
        ("InputXGradient", "input-x-gradient"),
        ("input * gradient", "input-x-gradient"),
        ("LRP", "lrp-epsilon"),
        ("guided_backprop * layer_cam", "guided*layercam"),
        ("score cam", "scorecam"),
    ],
)
def test_a_method_is_found_by_what_others_call_it(said: str, meant: str) -> None:
    assert get_method(said).name == meant


@pytest.mark.parametrize("table", [METHODS, RULES, ESTIMATORS, OBJECTIVES], ids=lambda t: t.what)
def test_no_two_are_called_alike(table: Registry) -> None:
    names = [squeezed(n) for one in table.values() for n in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)


DECLARED = """
import json
from onnxplain.export.estimators import ESTIMATORS
from onnxplain.export.methods import METHODS
from onnxplain.export.methods.layer_rules import RULES
from onnxplain.export.objectives import OBJECTIVES
print(json.dumps({table.what: [*table] for table in (METHODS, RULES, ESTIMATORS, OBJECTIVES)}))
"""


@pytest.fixture(scope="module")
def declared() -> dict[str, list[str]]:
    """The names in each table, by a process in which no test has registered another."""
    command = [sys.executable, "-c", DECLARED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("table", [METHODS, RULES, ESTIMATORS, OBJECTIVES], ids=lambda t: t.what)
def test_what_is_known_before_the_rules_is_what_they_declare(
    table: Registry, declared: dict[str, list[str]]
) -> None:
    known = getattr(names, f"{table.what.upper()}S")
    assert list(known) == declared[table.what]
    for name, one in known.items():
        assert one.aliases == table[name].aliases
        if table in (METHODS, ESTIMATORS):
            own = [(parameter.name, parameter.range) for parameter in table[name].own]
            assert [*one.parameters.items()] == own


def test_an_estimator_given_as_a_method_says_how_it_is_asked_for() -> None:
    for name in ("integrated-gradients", "IntegratedGradients", "ig"):
        with pytest.raises(SourceError, match=r"method='gradient', and estimator='integrated-grad"):
            method_of(ExportOptions(method=name))


def test_the_methods_options_are_checked_before_the_network_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no method"):
        export("no such network", tmp_path / "x.onnx", method="nonsense")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("EfficientNet-Lite0", "efficientnet-lite0"),
        ("ResNet-18", "resnet18"),
        ("squeezenet 1_1", "squeezenet1_1"),
    ],
)
def test_a_network_is_found_however_it_is_spelled(said: str, meant: str) -> None:
    assert torch_network(said, "none").name == meant


def test_every_network_is_its_own_spelling_alone() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert [spelled(name, names) for name in names] == names


def test_the_nearest_network_is_suggested_whatever_its_hyphens(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="did you mean efficientnet-lite0"):
        export("efficientnet_lite", tmp_path / "x.onnx")


def test_timm_declares_the_names_that_it_lists() -> None:
    assert sorted(timm_names()) == sorted(timm.list_models())


def test_torchvision_declares_the_names_that_it_lists() -> None:
    classifiers, others = torchvision_names()
    assert sorted(classifiers) == sorted(torchvision.models.list_models(module=torchvision.models))
    assert sorted(classifiers + others) == sorted(torchvision.models.list_models())


def test_names_that_timm_s_networks_had_before_are_names() -> None:
    """`tv_resnet34` is `resnet34.tv_in1k` now."""
    code = "from onnxplain.networks import canonical; print(canonical('timm/tv_resnet34'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "timm/tv_resnet34"
