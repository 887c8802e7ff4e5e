"""The page of pictures shows the options as they are declared."""

from __future__ import annotations

from pathlib import Path

from onnxplain.bench.pictures import options_table

PAGE = Path(__file__).parents[2] / "docs" / "pictures.md"


def test_the_page_shows_the_declared_options() -> None:
    assert f"<!-- options -->\n{options_table()}\n<!-- /options -->" in PAGE.read_text()
