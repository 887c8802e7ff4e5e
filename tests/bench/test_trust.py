"""Methods by metrics: known digits, what an interrupted run keeps, and what the tables say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onnxplain.bench.trust import candidates
from onnxplain.bench.trust.digits import canvases, untrained, write_canvases
from onnxplain.bench.trust.table import trust_tables
from onnxplain.runtime import load


def test_the_mask_is_of_the_digits_strokes(tmp_path: Path) -> None:
    pictures, classes, masks = canvases(20, seed=3, test=True)
    again = canvases(20, seed=3, test=True)
    assert all(np.array_equal(a, b) for a, b in zip((pictures, classes, masks), again, strict=True))
    assert (pictures[masks] > 64).all()  # nothing is put over a digit
    for mask in masks:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert 8 < np.ptp(rows) + 1 <= 24
        assert np.ptp(columns) + 1 <= 24
    of, share = write_canvases(tmp_path / "canvases", tmp_path / "masks", 3)
    written = [np.asarray(Image.open(tmp_path / "masks" / path.name)) > 127 for path in of]
    assert share == pytest.approx(np.mean(written))
    shown = [np.asarray(Image.open(path)) for path in of]
    assert all((picture[mask] > 64).all() for picture, mask in zip(shown, written, strict=True))


def test_what_is_stopped_keeps_whole_images_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("quantus")
    from onnxplain.bench.trust import __main__ as trust

    two = {name: candidates.CANDIDATES[name] for name in ("gradient", "excitation, T = 1")}
    names = ("random-logit", "relevance-mass")
    monkeypatch.setattr(candidates, "CANDIDATES", two)
    monkeypatch.setattr(trust, "SHOWN", [trust.METRICS[name] for name in names])
    work, out = tmp_path / "work", tmp_path / "trust.json"
    (work / "digits").mkdir(parents=True)
    made = {"weights": untrained().state_dict(), "accuracy": 0.1}
    torch.save(made, work / "digits" / "digits.pt")
    out.write_text('{"photographs": 1}')
    command = ["digits", "--images", "2", "--work", str(work), "--out", str(out)]
    trust.main([*command, "--minutes", "0"])
    stopped = json.loads(out.read_text())
    assert stopped["photographs"] == 1  # what is known of others stays
    assert (stopped["digits"]["images"], stopped["digits"]["of"]) == (0, 2)
    assert "0 of 2 canvases, so far," in trust_tables({"digits": stopped["digits"]})
    trust.main(command)
    found = json.loads(out.read_text())["digits"]
    assert found["images"] == found["of"] == 2
    masses = []
    for image in ("000.png", "001.png"):
        mask = np.asarray(Image.open(work / "digits/masks" / image)) > 127
        label = int(canvases(2, 501, test=True)[1][int(image[:3])])
        one = load(work / "digits/graphs/gradient.onnx", "cpu")(
            work / "digits/canvases" / image, label
        )
        strength = np.abs(one.pullback[0, 0])
        masses.append(strength[mask].sum() / strength.sum())
    mean = found["metrics"]["relevance-mass"]["means"]["gradient"]["mean"]
    assert mean == pytest.approx(np.mean(masses), rel=1e-4)


def test_images_that_are_not_whole_are_left_out() -> None:
    pytest.importorskip("quantus")
    from onnxplain.bench.trust.__main__ import whole
    from onnxplain.evaluation import METRICS, Score

    metrics = [METRICS["random-logit"], METRICS["infidelity"]]
    scores = [
        Score(f"{i} {g} {m}", g, "", f"{i}.png", 0, m.name, float(i))
        for i in (2, 0, 1)
        for g in ("b", "a")
        for m in metrics
    ]
    found = whole(scores[:-1], ["a", "b"], metrics)
    assert found.images == ("0.png", "2.png")
    np.testing.assert_array_equal(found.of("infidelity"), [[0, 2], [0, 2]])


def metric(
    better: str,
    best: str,
    *figures: tuple[float | None, float, float],
    images: Sequence[int] = (4, 4, 4),
) -> dict[str, Any]:
    means = {
        graph: {"mean": mean, "behind the best": [low, high], "images": count}
        for graph, (mean, low, high), count in zip(GRAPHS, figures, images, strict=True)
    }
    return {"better": better, "best": best, "means": means}


GRAPHS = ("excitation, T = 1", "guided", "gradcam")
DATA = {
    "machine": {"cpu": "a processor", "cores": 2},
    "network": "a network",
    "graphs": GRAPHS,
    "images": 4,
    "of": 12,
    "cost": dict(zip(GRAPHS, (2.34, 2.0, 1.0), strict=True)),
    "metrics": {
        "focus": metric("higher", "gradcam", (0.5, -0.3, -0.2), (0.6, -0.2, 0.1), (0.75, 0.0, 0.0)),
        "infidelity": metric(
            "lower", "excitation, T = 1", (1.5, 0.0, 0.0), (2.5, 0.1, 1.2), (None, np.nan, np.nan)
        ),
    },
}


def test_the_best_is_marked_by_the_data() -> None:
    said = trust_tables({"photographs": DATA})
    assert "4 of 12 photographs and mirror images, so far," in said
    assert "|  | cost | focus ↑ | infidelity ↓ | bold or ≈ |" in said
    assert "| excitation, T = 1 | 2.3 | 0.5 | **1.5** | 1 of 2 |" in said
    assert "| guided | 2.0 | 0.6 ≈ | 2.5 | 1 of 2 |" in said
    assert "| gradcam | 1.0 | **0.75** |  | 1 of 2 |" in said
    assert "beaten at both temperatures in 1 of 2 columns: focus (best: gradcam)." in said
    assert "Digits" not in said
    some = metric(
        "higher", "gradcam", (0.5, -0.3, -0.2), (0.6, -0.2, 0.1), (0.75, 0.0, 0.0), images=(4, 3, 4)
    )
    said = trust_tables({"photographs": DATA | {"metrics": {"focus": some}}})
    assert "| guided | 2.0 | 0.6 ≈ (n = 3) | 1 of 1 |" in said
    assert "| gradcam | 1.0 | **0.75** (n = 4) | 1 of 1 |" in said
    assert trust_tables({}) == "**Pending**: nothing has been measured yet."
