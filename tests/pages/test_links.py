"""No page leads nowhere, and each is led to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .markdown import PAGES, ROOT, anchors, links, shown

REPOSITORY = "https://github.com/onnxplain/onnxplain"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/*.webp")), ids=lambda path: path.name)
def test_a_committed_picture_is_shown_somewhere(picture: Path) -> None:
    assert any(picture.name in page.read_text() for page in PAGES)


def test_no_page_holds_what_a_merge_left() -> None:
    left = [shown(page) for page in PAGES if re.search(r"^[<>]{7} ", page.read_text(), re.M)]
    assert not left


def test_the_project_has_one_address() -> None:
    files = [*PAGES, *(ROOT / n for n in ("pyproject.toml", "CITATION.cff", "mkdocs.yml"))]
    for file in (f for f in files if f.exists()):
        for found in re.findall(r"https://github\.com/onnxplain\b[\w/.-]*", file.read_text()):
            assert found.startswith(REPOSITORY), (file, found)
