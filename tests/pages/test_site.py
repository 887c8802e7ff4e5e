"""The documentation is built, with no page left out and no link that leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .markdown import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def said(page: Path) -> str:
    """What a page says, without its markup."""
    return re.sub(r"<[^>]*>", "", page.read_text())


def test_the_reference_is_made_of_the_code(site: Path) -> None:
    commands = said(site / "reference" / "commands" / "index.html")
    for expected in ("onnxplain top-images", "onnxplain signal train", "--live-temperature"):
        assert expected in commands
    python = said(site / "reference" / "python" / "index.html")
    for expected in ("concept_layer", "convergence_delta", "SourceError", "start_pooled"):
        assert expected in python
    assert "lrp-epsilon-gamma-box" in said(site / "reference" / "methods" / "index.html")
    assert "multiply_adds" in said(site / "reference" / "metadata" / "index.html")


def test_notebooks_are_pages(site: Path) -> None:
    for one in (ROOT / "examples/notebooks").glob("*.py"):
        page = said(site / "notebooks" / one.stem / "index.html")
        assert "onnxplain.export(" in page
        assert "# %%" not in page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Neither type nor scripts: a reader's browser asks this site alone."""
    asked = r"<(?:script|img|iframe|link(?=[^>]*stylesheet))[^>]*(?:src|href)=\"?(https?:[^\" >]+)"
    found = {url for page in site.rglob("*.html") for url in re.findall(asked, page.read_text())}
    assert not found


def test_links_into_the_repository_name_what_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for path in re.findall(
            r"onnxplain/onnxplain/(?:blob|tree)/main/([^\"#>]+)", page.read_text()
        ):
            assert (ROOT / path).exists(), (page, path)
