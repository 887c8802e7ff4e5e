"""Files of any size beside files of one size, as the benchmark compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from onnxplain.bench.sizes import (
    BOUND,
    METHODS,
    NETWORKS,
    PROVIDERS,
    QUICK,
    RESULTS,
    SIZES,
    compare,
    main,
    sizes_table,
)

ROOT = Path(__file__).parents[2]


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def test_both_files_agree_on_both_runtimes_at_every_size() -> None:
    rows = list(compare("small", Small, ["gradient"], [(16, 16), (15, 22)]))
    assert [row["provider"] for row in rows] == [*PROVIDERS]
    for row in rows:
        assert row["reason"] is None
        assert [*row["relative L2"]] == ["16 × 16", "15 × 22"]
        assert all(0 <= far < 1e-6 for far in row["relative L2"].values())


def test_a_network_of_one_size_has_a_sentence() -> None:
    def fixed() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))

    rows = list(compare("fixed", fixed, ["gradient"], [(16, 16)]))
    assert all("give a number, size=HEIGHT" in row["reason"] for row in rows)


def test_what_was_measured_agrees_or_has_its_reason() -> None:
    rows = rows_of(RESULTS)
    assert {row["network"] for row in rows} <= {*NETWORKS}
    for row in rows:
        assert row["reason"] or [*row["relative L2"]] == [f"{h} × {w}" for h, w in SIZES]
    assert all(row["reason"] or max(row["relative L2"].values()) <= BOUND for row in rows)


def test_the_table_shows_both_runtimes_the_worst_size_and_what_is_beyond_the_bound() -> None:
    def row(method: str, provider: str, **more: Any) -> dict[str, Any]:
        return {"network": "resnet18", "method": method, "provider": provider, **more}

    near, far = ({"reason": None, "relative L2": {"a": 1e-8, "b": n}} for n in (2e-7, 1e-3))
    rows = [
        *(
            row("gradient", provider, **each)
            for provider, each in zip(PROVIDERS, (near, far), strict=True)
        ),
        row("excitation", PROVIDERS[0], **near),  # of the other runtime nothing is known yet
        *(row("gradcam", provider, reason="there is no layer") for provider in PROVIDERS),
    ]
    machine = {"versions": {"onnxruntime": "1.31", "openvino": "2026.4"}}
    shown = sizes_table({"rows": rows, "machine": machine})
    assert "| resnet18 | 2e-07 / **1e-03** | – | – | (1) | – |" in shown
    assert "–: not measured; nor were squeezenet1_1, resnet50, mobilenet_v2, " in shown
    assert "1. there is no layer" in shown


def test_an_unknown_network_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["resnet5"])
    assert "no network resnet5; there are squeezenet1_1" in capsys.readouterr().err


@pytest.mark.sweep
def test_the_whole_command_and_its_going_on(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    main(["--quick", "--out", str(path)])
    before = rows_of(path)
    assert len(before) == len(QUICK) * len(METHODS) * len(PROVIDERS)
    assert all(max(row["relative L2"].values()) <= BOUND for row in before)
    kept = [row for row in before if row["method"] != "semantic"]
    path.write_text(json.dumps({"machine": {}, "rows": kept}))
    main(["--quick", "--out", str(path)])
    assert rows_of(path) == before
