"""The recipes of docs/inputs.md run, in their order."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onnxplain.cli.app import app

PAGE = Path(__file__).parent.parent.parent / "docs" / "inputs.md"


def test_the_recipes_run(tmp_path: Path) -> None:
    text = PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (command,) = re.findall(r"```bash\nonnxplain (.*?)\n```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    given = dict[str, Any]()
    with contextlib.chdir(tmp_path):
        for block in blocks:
            exec(block, given)
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
        for name in ("words.png", "scan.png", "both.png", "why/sentences.png"):
            assert Path(name).stat().st_size > 1000
    assert given["of_words"].shape == (1, 7)
    rows = given["explainer"]({"picture": given["photograph"], "row": given["row"]})
    with pytest.raises(Exception, match="several values are explained"):
        rows.pullback  # noqa: B018
