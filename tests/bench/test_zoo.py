"""The zoo's entries and its page: what counts as agreement, and what float64 is asked for."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from onnxplain.bench.zoo import claims, sweep
from onnxplain.bench.zoo.claims import exported, merged
from onnxplain.bench.zoo.entry import METHODS, in_float64, moved_by_rounding, tried
from onnxplain.bench.zoo.maps import map_of, maps_section
from onnxplain.bench.zoo.page import exact, markdown, passes, right_in_float64
from onnxplain.export.sources.source import from_module

AGREES = {"max_abs": 1e-9, "relative_l2": 4e-7, "cosine": 1.0}
ROUNDED = {"max_abs": 1e-5, "relative_l2": 1.6e-3, "cosine": 0.999999}
WRONG = {"max_abs": 1.0, "relative_l2": 0.5, "cosine": 0.9}
TINY = {"max_abs": 1e-12, "relative_l2": 1.2e-12, "cosine": 1.0}
ERROR = "RuntimeError: no such operator"


class Rounding(nn.Module):
    """Gates whose preactivations float32 knows to within 1e-4 alone, at an offset of 2000."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset
        self.head = nn.Linear(3 * 128 * 128, 5)

    def forward(self, image: Tensor) -> Tensor:
        shifted = (image + self.offset).abs()  # which keeps the offsets from cancelling
        return self.head(torch.relu(shifted - self.offset).flatten(1))


def made(offset: float, method: str, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    module = Rounding(offset).eval()
    forward = folder / "forward.onnx"
    ir.save(from_module(module, torch.zeros(2, 3, 128, 128)).model, forward)
    return tried(forward, module, method)


def of(pullback: dict[str, float], **more: Any) -> dict[str, Any]:
    cost = {"export_seconds": 1.0, "bytes": 20, "batch": None, "tensorrt": None}
    return {"reason": None, "logits": AGREES, "pullback": pullback, **cost, **more}


def entry(gradient: dict[str, Any]) -> dict[str, Any]:
    methods = {method: gradient if method == "gradient" else of(AGREES) for method in METHODS}
    traced = {"parameters": 1_000_000, "image": [3, 8, 8], "trace_seconds": 1.0}
    return {"reason": None, "forward_bytes": 10, **traced, "methods": methods}


def page(**networks: dict[str, Any]) -> str:
    machine = {"cpu": "a processor", "cores": 2, "versions": {"onnx": "1"}}
    return markdown({"networks": networks, "machine": machine, "onnxplain": "0"})


def section(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


class TestEntry:
    def test_a_gate_within_rounding_of_0_is_right_in_float64(self, tmp_path: Path) -> None:
        found = made(2000.0, "gradient", tmp_path)
        assert found["pullback"]["relative_l2"] > 1e-3
        assert found["float64"]["relative_l2"] < 1e-12
        assert right_in_float64(found)
        assert exact(found)

    def test_float64_is_asked_only_where_float32_misses(self, tmp_path: Path) -> None:
        found = made(4.0, "gradient", tmp_path)
        assert exact(found)
        assert "float64" not in found

    def test_an_evaluation_that_fails_is_told_in_a_sentence(self, tmp_path: Path) -> None:
        nothing = np.zeros(1)
        found = in_float64(tmp_path / "absent.onnx", nothing, nothing, nothing)
        assert isinstance(found, str)
        assert found.startswith("FileNotFoundError: ")


class TestRounding:
    def test_it_moves_a_gradient_by_gates_within_it_of_0_and_excitation_hardly(self) -> None:
        """Sixteen neurons, of which one's preactivation is the rounding of two equal weights."""
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        )
        with torch.no_grad():
            module[0].weight[0], module[0].bias[0] = torch.tensor([1.0, -1.0]), 0.0
        x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)

        def gradient(m: torch.nn.Module) -> np.ndarray:
            return torch.autograd.grad(m(x).sum(), x)[0].numpy()

        def smooth(m: torch.nn.Module) -> np.ndarray:
            return gradient(torch.nn.Sequential(m[0], torch.nn.Softplus(), m[2]))

        double = copy.deepcopy(module).double()
        assert moved_by_rounding(gradient, module, gradient(double)) > 1e-2
        assert moved_by_rounding(smooth, module, smooth(double)) < 1e-6


class TestAgreement:
    @pytest.mark.parametrize(
        ("gradient", "right"),
        [
            (of(AGREES), True),
            (of(ROUNDED), False),
            (of(ROUNDED, float64=TINY), True),
            (of(ROUNDED, float64=ROUNDED), False),
            (of(ROUNDED, float64=ERROR), False),
            (of(ROUNDED, float64=ROUNDED, rounding=1.5e-3), True),
            (of(ROUNDED, float64=ROUNDED, rounding=1e-5), False),
            (of(WRONG, float64=WRONG, rounding=1.0), False),
            (of(WRONG, float64=TINY), False),
            (of({**AGREES, "cosine": float("nan")}), False),
            ({"reason": "SourceError: none"}, False),
        ],
    )
    def test_of_a_method_and_so_of_its_network(self, gradient: dict[str, Any], right: bool) -> None:
        assert exact(gradient) is right
        assert passes(entry(gradient)) is right


class TestPage:
    def test_a_graph_right_in_float64_passes_and_shows_both_figures(self) -> None:
        text = page(alexnet=entry(of(AGREES)), densenet121=entry(of(ROUNDED, float64=TINY)))
        torchvision = "- torchvision: 2 of its 2 classifiers; for 1 of these, some method agrees"
        assert f"{torchvision} only in float64" in text
        row = next(line for line in text.splitlines() if line.startswith("| densenet121"))
        assert "| 2e-03 (float64: 1e-12) |" in row
        assert section(text, "What did not work").strip() == "Everything worked."
        assert section(text, "Right in float64, off in float32").strip() == (
            "- **densenet121**, gradient: relative L2 1.6e-03, cosine 0.999999; "
            "in float64 relative L2 1.2e-12, cosine 1.000000"
        )

    def test_one_that_is_wrong_in_float64_too_did_not_work(self) -> None:
        text = page(alexnet=entry(of(WRONG, float64=WRONG)), vgg11=entry(of(WRONG, float64=ERROR)))
        assert "- torchvision: 0 of its 2" in text
        assert "5e-01 (float64: 5e-01) ✗" in text
        assert "Right in float64" not in text
        failures = section(text, "What did not work")
        off = "gradient: relative L2 5.0e-01, cosine 0.900000"
        assert f"- **alexnet**, {off}; in float64 relative L2 5.0e-01, cosine 0.9" in failures
        assert f"- **vgg11**, {off}; in float64 {ERROR}" in failures

    def test_without_such_a_graph_it_says_nothing_of_them(self) -> None:
        text = page(alexnet=entry(of(AGREES)))
        assert "- torchvision: 1 of its 1 classifiers" in text.splitlines()
        assert "Right in float64, off" not in text


def claimed(**networks: dict[str, Any]) -> str:
    machine = {"cpu": "a processor", "cores": 2, "versions": {"onnx": "1"}}
    results = {"networks": dict.fromkeys(networks, entry(of(AGREES)))}
    known = {"machine": machine, "onnxplain": "0"}
    return markdown(results | known, {"networks": networks} | known)


def test_the_page_says_what_stays_on_the_gpu() -> None:
    asked = {"reason": None, "variants": ["plain"], "refused": {}, "asked": 10, "leaves": {}}
    text = claimed(a=asked, b=asked | {"leaves": {"gradient plain float32": {"copies": 2}}})
    (a, b) = (line for line in text.splitlines() if line.startswith(("| a |", "| b |")))
    assert a.endswith("| ✓ 10 |")
    assert b.endswith("| 9 of 10 ✗ |")
    assert "of 2 networks (plain of 2), 20 graphs; 1 networks stay" in text
    assert "- **b**, gradient plain float32, CUDA: {'copies': 2}" in text
    assert page(a=entry(of(AGREES))).count("| ✓ |  |") == 1


def test_the_next_graph_is_exported_beside_the_one_that_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves that one as it is; a method that the network refuses is passed over."""
    cases = [(method, "plain") for method in ("gradient", "gradcam", "excitation", "semantic")]
    cases.append(("semantic", "step"))
    written = {method: threading.Event() for method, _ in cases}

    def export(source: Path, path: Path, method: str, check: bool, **options: bool) -> None:
        if method != "gradcam":
            path.write_text(" ".join([method, *options]))
        written[method].set()
        if method == "gradcam":
            raise ValueError("no such layer")

    monkeypatch.setattr(claims, "export", export)
    refused: dict[str, str] = {}
    found = {}
    for (case, path), then in zip(
        exported(cases, tmp_path / "forward.onnx", tmp_path, refused),
        ("gradcam", "semantic", "semantic", "semantic"),
        strict=True,
    ):
        assert written[then].wait(10)
        found[case] = path.read_text()
    names = ["gradient", "excitation", "semantic", "semantic step"]
    assert list(found.values()) == names
    assert list(found) == ["gradient plain", "excitation plain", "semantic plain", "semantic step"]
    assert refused == {"gradcam plain": "ValueError: no such layer"}


def test_claims_of_other_variants_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each variant what was found last; and a run that failed takes nothing away."""
    copies, file = {"copies": 2}, tmp_path / "claims.json"

    def run(made: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr(sweep, "_apart", lambda *_: made)
        sweep.sweep(["net"], file, 1, 1, lambda *_: None, merged=merged)
        return dict(sweep.read(file)["networks"]["net"])

    leaves = {"gradient plain float32": copies, "semantic step float16": copies}
    first = {"reason": None, "variants": ["plain", "step"], "refused": {"gradcam plain": "no"}}
    first |= {"asked": 14, "leaves": leaves}
    assert run(first) == first
    step = {"reason": None, "variants": ["step"], "refused": {"gradient step": "no"}}
    step |= {"asked": 4, "leaves": {"excitation step float32": copies}}
    both = run(step)
    assert both["variants"] == ["plain", "step"]
    assert both["refused"] == first["refused"] | step["refused"]
    assert both["leaves"] == {"gradient plain float32": copies} | step["leaves"]
    assert both["asked"] == 8 + 4
    assert run({"reason": "took longer than 1 s"}) == both


def test_a_map_a_refusal_and_a_failure_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    forward = tmp_path / "forward.onnx"
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), pool).eval()
    ir.save(from_module(network, torch.zeros(2, 3, 16, 16)).model, forward)
    made = {method: map_of(forward, method) for method in ("gradcam", "legrad")}
    assert made["gradcam"]["failed"] is None
    assert made["gradcam"]["refused"] is None
    assert "the network has none (no Softmax" in made["legrad"]["refused"]

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("of what nobody thought")

    monkeypatch.setattr("onnxplain.bench.zoo.maps.load", fail)
    broken = map_of(forward, "gradcam")
    assert broken == {"refused": None, "failed": "ValueError: of what nobody thought"}
    assert [file.name for file in tmp_path.iterdir()] == ["forward.onnx"]
    methods = {**made, "transformer-attribution": broken}
    entries = {"timm/beit_base_patch16_224": {"reason": None, "methods": methods}}
    *_, row, _, sentence, _, waiting = maps_section({"networks": entries})
    assert waiting.startswith("Not asked yet: ")
    assert "beit_base" not in waiting
    assert row.endswith(f"| beit | {made['gradcam']['of']} | (1) | ✗ {broken['failed']} |")
    assert sentence.startswith("1. the network has none (no Softmax")
    assert made["legrad"]["refused"].endswith(sentence.removeprefix("1. "))
