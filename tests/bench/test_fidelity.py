"""Our methods beside their authors' definitions, row by row, and the page about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxplain.bench.fidelity.rows import ROWS, Row

EXACT = 1e-4

APART = {"A1", "B1", "B2", "C1", "C5", "C6", "C9", "C10", "C11", "C12"}
"""Where ours differs by default, for a reason that the page gives, or theirs has a choice."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_ours_is_the_authors_by_default_or_with_the_option(row: Row, tmp_path: Path) -> None:
    found = row.measure(tmp_path)
    assert found.default is not None
    assert (found.default > 0.01) if row.number in APART else (found.default <= EXACT)
    if row.number in APART and row.option:
        assert found.option is not None
        assert found.option <= EXACT


def test_the_page_has_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    for row in ROWS:
        assert f"| {row.number} | {row.what} | {row.theirs} | {row.ours} |" in page
