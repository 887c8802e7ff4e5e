"""Explanations beside other packages', on small networks: the whole command, and its going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxplain.bench.estimators.__main__ import main
from onnxplain.bench.estimators.networks import QUICK
from onnxplain.bench.estimators.parity import BOUND
from onnxplain.bench.estimators.rows import MERGED, ROWS, THROUGHOUT, ZENNIT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
APART = {("gradcam++", "pytorch-grad-cam")}
"""Rows with a difference that the page explains: 1e-6 is added to a divisor."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "estimators.json"
    main(["parity", "--quick", "--out", str(path)])
    return path


def records(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = json.loads(path.read_text())["parity"]
    return {(one["network"], one["row"], one["package"]): one for one in found}


@pytest.mark.sweep
def test_every_row_agrees_or_is_explained(written: Path) -> None:
    found = records(written)
    assert {*found} == {(n, *r.key) for n in QUICK for r in ROWS if r.goes_with(QUICK[n])}
    for (_, row, package), one in found.items():
        assert one["reason"] is None or "lxt is not installed" in one["reason"]
        named = (row, package) in APART or package in (ZENNIT, THROUGHOUT)
        if one["reason"] is None and not named:
            assert one["relative L2"] <= BOUND / 10, one


@pytest.mark.sweep
def test_what_zennit_does_otherwise_is_gone_with_the_norms(written: Path) -> None:
    found = records(written)
    pairs = [(found[n, r, ZENNIT], one) for (n, r, p), one in found.items() if p == MERGED]
    assert pairs
    for apart, merged in pairs:
        assert merged["relative L2"] < 1e-2 * apart["relative L2"]


@pytest.mark.sweep
def test_it_goes_on_where_it_was_interrupted(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads(written.read_text())
    kept, left = before["parity"][:-2], before["parity"][-2:]
    path = tmp_path / "some.json"
    path.write_text(json.dumps(before | {"parity": kept}))
    main(["parity", "--quick", "--out", str(path)])
    after = json.loads(path.read_text())["parity"]
    assert after[:-2] == kept
    assert [one["row"] for one in after] == [one["row"] for one in before["parity"]]
    assert [one["relative L2"] for one in after[-2:]] == [one["relative L2"] for one in left]


def test_an_unknown_network_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["parity", "resnet5"])
    assert "no network resnet5; there are resnet50, vgg16_bn" in capsys.readouterr().err
