"""The commands that measure network by network: each row kept as it is made, and not made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnxplain.bench import sizes
from onnxplain.bench.estimators import __main__ as estimators
from onnxplain.bench.estimators.networks import QUICK
from onnxplain.bench.estimators.rows import ROWS


def until(count: int) -> Callable[[], None]:
    """Stop at the call behind so many."""
    calls = iter(range(count))

    def one() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return one


def test_the_sizes_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[tuple[str, str, str]] = []

    def compare(name: str, make: object, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
        for method in methods:
            for provider in sizes.PROVIDERS:
                stop()
                made.append((name, method, provider))
                row = {"network": name, "method": method, "provider": provider}
                yield row | {"reason": None, "relative L2": {"1 × 1": 0.0}}

    monkeypatch.setattr(sizes, "compare", compare)
    path, stop = tmp_path / "sizes.json", until(3)
    with pytest.raises(KeyboardInterrupt):
        sizes.main(["--quick", "--out", str(path)])
    stop = until(1000)
    sizes.main(["--quick", "--out", str(path)])
    keys = [(n, m, p) for n in sizes.QUICK for m in sizes.METHODS for p in sizes.PROVIDERS]
    rows = json.loads(path.read_text())["rows"]
    assert [(row["network"], row["method"], row["provider"]) for row in rows] == keys
    half = keys[2:4]  # of the method whose second provider was missing, both again
    assert sorted(made) == sorted([*keys, half[0]])
    sizes.main(["--quick", "--out", str(path), "--again", "a small FCN"])
    assert len(made) == len(keys) + 1 + len(keys) // 2


def test_the_estimators_go_on_where_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[str, str, str]] = []

    def compare(name: str, network: object, rows: Sequence[Any], _: object) -> Iterator[Any]:
        for row in rows:
            stop()
            made.append((name, *row.key))
            key = {"network": name, "row": row.name, "package": row.package}
            yield key | {"reason": "refused" if row is ROWS[0] else None}

    monkeypatch.setattr(estimators, "compare", compare)
    monkeypatch.setattr(estimators, "photographs", list)
    path, stop = tmp_path / "estimators.json", until(2)
    command = ["parity", "--quick", "--out", str(path)]
    with pytest.raises(KeyboardInterrupt):
        estimators.main(command)
    stop = until(1000)
    estimators.main(command)
    keys = [(n, *r.key) for n in QUICK for r in ROWS if r.goes_with(QUICK[n])]
    records = json.loads(path.read_text())["parity"]
    assert [(r["network"], r["row"], r["package"]) for r in records] == keys
    again = [key for key in keys[:2] if key[1:] == ROWS[0].key]  # what was refused is tried again
    assert sorted(made) == sorted([*keys, *again])


def test_the_evaluation_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("quantus")
    from onnxplain.bench.evaluation import __main__ as evaluation

    made: list[tuple[str, str, str]] = []
    images = [SimpleNamespace(name=f"{i}.png") for i in range(2)]

    def both(
        sample: Any, _: object, method: str, __: object, of: object, metrics: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for metric in metrics:
            made.append((sample.name, method, metric))
            one = {"score": 0.5, "seconds": 1.0}
            key = {"image": sample.name, "method": method, "metric": metric}
            yield key | {"graph": one, "pytorch": one}
        stop()

    monkeypatch.setattr(evaluation, "both", both)
    monkeypatch.setattr(evaluation, "exported", lambda methods, *_: dict.fromkeys(methods))
    monkeypatch.setattr(evaluation, "network_of_pixels", list)
    monkeypatch.setattr(evaluation, "photographs", lambda *_: [])
    monkeypatch.setattr(evaluation, "listed", lambda *_: images)
    path, stop = tmp_path / "evaluation.json", until(1)
    command = ["--images", "2", "--methods", "a,b", "--metrics", "x,y", "--out", str(path)]
    with pytest.raises(KeyboardInterrupt):
        evaluation.main(command)
    stop = until(1000)
    evaluation.main(command)
    keys = [(f"{i}.png", method, metric) for i in range(2) for method in "ab" for metric in "xy"]
    kept = json.loads(path.read_text())
    assert [(row["image"], row["method"], row["metric"]) for row in kept["rows"]] == keys
    assert made == [*keys[:4], *keys[2:]]  # what was not whole when it was stopped, again
    assert (kept["scores"], kept["images"], kept["ratio"]) == (8, 2, 1.0)
