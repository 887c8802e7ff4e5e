"""The pages that people read, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "kernels/*.md")
    for page in ROOT.glob(pattern)
)
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shown(page: Path) -> str:
    """A page's path from the root."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of a page in these languages, in its order."""
    return [code for language, code in _FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have, as GitHub gives them."""
    text = _FENCE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(
            " ", "-"
        )
        for title in re.findall(r"^#+ (.*?)\s*$", text, re.MULTILINE)
    }


def links(page: Path) -> Iterator[str]:
    """Where a page leads, and the pictures that it shows; addresses of other servers left out."""
    for target in re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target
