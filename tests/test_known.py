"""Right by default: what is known of networks by name, and what is said of the others."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain import asking
from onnxplain.cli import app
from onnxplain.contract.request import ExportOptions
from onnxplain.demo import NETWORK, TEMPERATURE
from onnxplain.export.known import KNOWN, Known, known_of, suited
from onnxplain.export.methods import METHODS, get_method
from onnxplain.export.sources import source
from onnxplain.export.sources.source import TorchNetwork, torch_network
from onnxplain.runtime.cache import cache_folder

from .test_front_doors import SIZE, Small


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is that of a small network, and something is known of one of them."""
    torch.manual_seed(0)
    module = Small().eval()
    pre = torch_network("squeezenet1_1", "none").preprocessing

    def network(name: str, weights: str = "DEFAULT", size: object = None) -> TorchNetwork:
        return TorchNetwork(name, module, source.at_size(pre, (SIZE, SIZE)), ())

    monkeypatch.setattr(source, "torch_network", network)
    monkeypatch.setattr(asking, "canonical", lambda name: name)
    monkeypatch.setitem(
        KNOWN, "our-net", Known("our-net", "us", {"excitation": 0.8}, {"layercam": "stem"})
    )


def test_each_known_network_can_be_exported_so() -> None:
    for known in KNOWN.values():
        modules = {name for name, _ in torch_network(known.name, "none").module.named_modules()}
        assert {*known.layers.values()} <= modules
        assert known.temperatures.keys() | known.layers.keys() <= METHODS.keys()
        assert all(METHODS[method].has_temperature for method in known.temperatures)


def test_lite0_by_name_has_the_temperature_of_the_demos_picture() -> None:
    for name in ("efficientnet-lite0", "EfficientNet_Lite0"):
        options = suited(ExportOptions(), get_method("excitation"), name)
        assert options.temperature == TEMPERATURE
    assert known_of(NETWORK) is not None


@pytest.mark.usefixtures("small")
def test_what_is_known_is_the_default_and_no_more(tmp_path: Path) -> None:
    def parameters(**options: object) -> dict[str, object]:
        return dict(onnxplain.export("our_net", tmp_path / "x.onnx", **options).parameters)

    assert parameters() == {"temperature": 0.8}
    assert parameters(temperature=0.5) == {"temperature": 0.5}
    assert parameters(parameters={"temperature": 0.5}) == {"temperature": 0.5}
    assert parameters(weights="none") == {"temperature": 0.3}  # tuned for the trained ones
    assert parameters(method="semantic") == {"temperature": 1.0}
    assert parameters(method="layercam") == {"layer": "stem"}
    chosen = suited(ExportOptions(layer="head"), get_method("layercam"), "our-net")
    assert chosen.layer == "head"


@pytest.mark.usefixtures("small")
def test_of_another_network_it_is_said_how_its_own_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "onnxplain")
    hint = "onnxplain tune other photos/ --method excitation"
    onnxplain.export("other", tmp_path / "x.onnx")
    assert [hint in record.getMessage() for record in caplog.records].count(True) == 1
    caplog.clear()
    onnxplain.export("other", tmp_path / "x.onnx", temperature=0.3)
    onnxplain.export("other", tmp_path / "x.onnx", method="gradient")
    onnxplain.export("our-net", tmp_path / "x.onnx")
    assert not [record for record in caplog.records if "onnxplain tune" in record.getMessage()]
    done = CliRunner().invoke(app, ["export", "other", "-o", str(tmp_path / "x.onnx")])
    assert hint in " ".join(done.stderr.split())


def test_a_network_that_cannot_be_read_gets_no_hint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "onnxplain")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(onnxplain.OnnxplainError):
        onnxplain.export(tmp_path / "broken.onnx", tmp_path / "x.onnx")
    assert not caplog.records


@pytest.mark.usefixtures("small")
def test_a_network_by_name_is_explained_and_exported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save("cat.jpg")

    def explain(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["explain", "our-net", "cat.jpg", *arguments])
        return done.exit_code, " ".join(done.output.split())

    code, said = explain()
    assert code == 0, said
    assert (tmp_path / "explanations" / "cat.png").is_file()
    (kept,) = cache_folder("networks").iterdir()
    assert "our-net is exported once, to" in said
    assert onnxplain.load(kept).metadata.parameters == {"temperature": 0.8}
    written = kept.stat().st_mtime_ns, kept.read_bytes()
    code, said = explain()
    assert (code, "exported once" in said) == (0, False)
    assert kept.read_bytes() == written[1]
    assert explain("--method", "gradient")[0] == 0
    assert len([*cache_folder("networks").iterdir()]) == 2
    done = CliRunner().invoke(app, ["explain", str(kept), "cat.jpg", "--method", "gradient"])
    assert done.exit_code == 4
    assert "takes no --method" in done.output


def test_a_name_that_no_network_has_is_said_to_be_none(tmp_path: Path) -> None:
    Image.new("RGB", (20, 16)).save(tmp_path / "cat.jpg")
    done = CliRunner().invoke(app, ["explain", "resnett18", str(tmp_path / "cat.jpg")])
    assert done.exit_code == 3
    assert "did you mean resnet18" in " ".join(done.output.split())
