"""The launches of an explanation are counted on any machine, and must not grow."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from onnxplain.bench import launches
from onnxplain.bench.launches import Launches, table, worse
from onnxplain.bench.readme import launches_table
from onnxplain.cli import app
from onnxplain.errors import InputError

from ..cuda.small import network

COUNTED = Launches(
    "net",
    "excitation",
    "cuda",
    {
        "forward": {"Conv": 10},
        "explain": {"Conv": 20, "Sigmoid": 8},
        "explain, kernels": {"Conv": 20, "SoftGate": 2},
    },
    {"forward": 10, "explain": 27},
    {"forward": 1, "explain": 1},
)


def test_nodes_of_the_forward_and_the_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the processor, where no CUDA provider is asked."""
    monkeypatch.setattr(launches, "_cuda", lambda folder: None)
    monkeypatch.setattr(launches, "compiled_layers", lambda path: None)
    onnx.save(network(), tmp_path / "small.onnx")
    found = launches.launches("small", "excitation", tmp_path / "small.onnx")
    assert found.provider == "cpu"
    assert found.nodes["forward"].get("Sigmoid") is None
    assert found.nodes["explain"]["Sigmoid"] == 2
    assert not found.layers
    assert asdict(found)["nodes"] == found.nodes


def test_the_table_shows_every_side() -> None:
    console = Console(width=120, record=True)
    console.print(table(COUNTED))
    text = " ".join(console.export_text().split())
    for part in ("nodes; 2.80 ×, 2.20 ×", "Sigmoid │ │ 8 │", "27 │ not known", "SoftGate"):
        assert part in text


def test_the_command_checks_against_earlier_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = COUNTED.nodes | {"explain": {"Conv": 31}}
    results = {"networks": [asdict(COUNTED)], "machine": {}}
    (tmp_path / "earlier.json").write_text(json.dumps(results))
    command = ["bench", "resnet18", "--launches", "--check", str(tmp_path / "earlier.json")]
    for nodes, code in ((COUNTED.nodes, 0), (more, 1)):
        found = replace(COUNTED, nodes=nodes)
        monkeypatch.setattr(launches, "launches", lambda *_, found=found: found)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == code, result.output
        assert ("3.10 × the forward's nodes, and was 2.80" in result.output) == bool(code)
        assert ("nothing is worse than in" in result.output) == (not code)


def test_the_readme_shows_ratios() -> None:
    text = launches_table({"networks": [asdict(COUNTED)]})
    assert "| net | excitation | 10 | 28 | 22 | 2.80 | 2.20 | 10 : 27 | 1 : 1 |" in text


def test_more_nodes_or_regions_than_before_are_told() -> None:
    def results(**changes: Any) -> dict[str, Any]:
        return {"networks": [asdict(COUNTED) | changes]}

    assert worse(results(), results()) == []
    more = COUNTED.nodes | {"explain": {"Conv": 31}}
    assert worse(results(nodes=more, layers={"forward": 1, "explain": 3}), results()) == [
        "net, explain: 3.10 × the forward's nodes, and was 2.80",
        "net, explain: 3 regions, and was 1",
    ]
    assert worse(results(), results(nodes=more)) == []
    assert worse(results(kernels={"forward": 10, "explain": 31}), results()) == [
        "net, explain: 3.10 × the forward's kernels, and was 2.70"
    ]
    fewer = {side: COUNTED.nodes[side] for side in ("forward", "explain")}
    assert worse(results(nodes=fewer, kernels={}, layers={}), results()) == [
        "net, explain, kernels: its nodes are not counted now, and were",
        "net, explain: its kernels are not counted now, and were",
        "net, forward: its regions are not counted now, and were",
        "net, explain: its regions are not counted now, and were",
    ]
    with pytest.raises(InputError, match="none of these networks"):
        worse(results(provider="cpu"), results())
