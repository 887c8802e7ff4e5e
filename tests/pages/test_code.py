"""The Python on the pages runs as it stands, on small networks under the names of large ones.

That of other pages is run where their subject is tested: attention, camera, differentiate,
estimators, extending, inputs, maps, objectives, relevance.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import onnxplain

from .markdown import PAGES, ROOT, blocks, shown

SIZE = 64


def small(classes: int = 6) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, classes),
    ).eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with photographs, where networks by name are small."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    for name in ("cat", "dog"):
        Image.fromarray(pixels).save(f"{name}.jpg")
    export = onnxplain.export

    def by_name(source: Any, path: Any, **options: Any) -> Any:
        if isinstance(source, str) and not source.endswith(".onnx"):
            options.pop("weights", None)
            source, options["example"] = small(), torch.zeros(1, 3, SIZE, SIZE)
        return export(source, path, **options)

    monkeypatch.setattr(onnxplain, "export", by_name)
    return tmp_path


def run(page: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """All blocks of a page, one after another, an image being of the small network's size."""
    values = {} if given is None else given
    code = blocks(ROOT / page, "python")
    assert code
    for block in code:
        exec(re.sub(r"\b224\b", str(SIZE), block), values)
    return values


def test_the_readme(folder: Path) -> None:
    values = run("README.md")
    assert values["explanation"].pullback.shape == (2, 3, SIZE, SIZE)
    assert values["pullback"].shape == (1, 3, SIZE, SIZE)
    assert (folder / "why.png").stat().st_size > 1000


def test_start(folder: Path) -> None:
    values = run("docs/start.md")
    assert len(values["explanation"].labels(3)[0]) == 3
    assert (folder / "why.png").stat().st_size > 1000


def test_how_it_works(folder: Path) -> None:
    values = run("docs/how-it-works.md")
    assert not np.allclose(values["gradient"], values["pullback"], atol=1e-3)


def test_coming_from(folder: Path) -> None:
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    values = run("docs/coming-from.md", {"network": small(), "images": images})
    assert np.linalg.norm(values["theirs"]) > 0


def test_export(folder: Path) -> None:
    torch.onnx.export(small(), (torch.zeros(1, 3, SIZE, SIZE),), "classifier.onnx", dynamo=True)
    values = run("docs/export.md", {"module": small(2), "torch": torch})
    assert values["explanation"].pullback.shape == (2, 3, SIZE, SIZE)
    assert onnxplain.load("classifier.explain.onnx", "cpu").metadata.method == "gradient"


def test_pages_that_take_the_file_of_the_readme(folder: Path) -> None:
    onnxplain.export("resnet50", "resnet50.explain.onnx")
    values = run("docs/format.md")
    assert values["entries"]["onnxplain.method"] == "excitation"
    values = run("docs/platforms.md")
    assert values["session"].get_inputs()[0].shape[0] == 1  # the batch, once it is known
    assert onnx.load("resnet50.explain.onnx").graph.input[0].name == "image"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_opens_is_written_by_one_of_its_commands(page: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    written = Counter[str]()
    for line in "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
        if found := re.match(r"onnxplain export (\S+)(?:.* -o (\S+))?", line):
            written[found[2] or f"{Path(found[1]).name.removesuffix('.onnx')}.explain.onnx"] += 1
    assert not {name: n for name, n in written.items() if n > 1 and f'"{name}"' in code}
