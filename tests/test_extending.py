"""onnxplain extended from outside: the package that docs/extending.md shows, installed."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.export import METHODS
from onnxplain.export.operators import OPERATORS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "extending.md"
EXAMPLE = ROOT / "examples" / "extension"
IMAGES = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the example in it, as pip would put it there."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(EXAMPLE / "acme.py", folder)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], project["entry-points"]["onnxplain"])
    return folder


def install(folder: Path, name: str, entries: dict[str, str]) -> None:
    about = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = [f"{entry} = {module}" for entry, module in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(["[onnxplain]", *lines]))


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier by distance to prototypes, with an operator that is ONNX Runtime's own."""
    path = tmp_path_factory.mktemp("prototypes") / "prototypes.onnx"
    with contextlib.chdir(path.parent):
        runpy.run_path(str(EXAMPLE / "prototypes.py"))
    return path


def run(*command: object, packages: Path) -> subprocess.CompletedProcess[str]:
    """Python with more packages than this process has."""
    paths = os.pathsep.join([str(packages), str(ROOT)])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
    )


def pullback(prototypes: Path, targets: list[int], beta: float) -> np.ndarray:
    """Of the classifier above, by PyTorch: its own forward, ReLU's slope σ(βz)."""
    stored = onnx.load(prototypes).graph.initializer
    weights = {one.name: torch.tensor(numpy_helper.to_array(one)).double() for one in stored}
    x = torch.from_numpy(IMAGES).double().requires_grad_()
    z = torch.nn.functional.conv2d(x, weights["filters"], padding=1)
    features = z.relu().mean((2, 3))
    rows = weights["prototypes"][targets]
    g = (-2 * (features - rows))[:, :, None, None] / 64 * torch.sigmoid(beta * z)
    return torch.autograd.grad(z, x, g.detach())[0].numpy()


def test_a_package_brings_an_operator_and_a_method_to_the_command_line(
    installed: Path, prototypes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "explain.onnx"
    options = ["--method", "softplus", "--param", "beta=0.5", "-o", path]
    done = run("-m", "onnxplain.cli", "export", prototypes, *options, packages=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "softplus, beta 0.5" in done.stdout
    explanation = onnxplain.load(path, "cpu")(IMAGES, [1, 3])  # which needs no extension
    np.testing.assert_allclose(
        explanation.pullback, pullback(prototypes, [1, 3], 0.5), rtol=1e-4, atol=1e-6
    )


def test_a_parameter_that_the_method_did_not_declare_is_told(
    installed: Path, prototypes: Path
) -> None:
    options = ["--method", "softplus", "--param", "gamma=1"]
    done = run("-m", "onnxplain.cli", "export", prototypes, *options, packages=installed)
    assert done.returncode == 3
    assert "method 'softplus' has no gamma; leave it out (it has beta)" in done.stderr


def test_without_the_package_its_method_and_operator_are_missing(
    prototypes: Path, tmp_path: Path
) -> None:
    for options, message in (
        (["--method", "softplus"], "no method 'softplus'"),
        (["--method", "gradient"], "com.microsoft::CDist"),
    ):
        done = run("-m", "onnxplain.cli", "export", prototypes, *options, packages=tmp_path)
        assert done.returncode == 3
        assert message in done.stderr


def test_an_extension_that_cannot_be_imported_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('out of order')")
    install(tmp_path, "broken", {"broken": "broken"})
    done = run("-c", "import onnxplain.export", packages=tmp_path)
    assert done.returncode == 0
    assert "'broken' (broken) of onnxplain cannot be imported: ValueError('out of" in done.stderr


def test_the_example_checks_its_own_rule(installed: Path) -> None:
    done = run(EXAMPLE / "acme.py", packages=installed)
    assert done.returncode == 0, done.stderr


def test_a_metric_without_a_rule_is_refused(installed: Path) -> None:
    check = "check_vjp('com.microsoft::CDist', [np.eye(2)] * 2, {'metric': 'cosine'}, "
    code = f"import numpy as np; from acme import *; {check}operators=[CDist])"
    done = run("-c", code, packages=installed)
    assert done.returncode == 1
    assert "CDist by 'cosine' has no rule" in done.stderr


def test_the_pages_code_is_the_examples() -> None:
    files = [(EXAMPLE / name).read_text() for name in ("acme.py", "prototypes.py")]
    shown = [block for block in BLOCKS if "onnxplain.export(" not in block]
    assert len(shown) == 6
    for block in shown:
        assert any(block in file or textwrap.indent(block, "    ") in file for file in files)


def test_the_page_runs_in_the_order_in_which_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "softplus", None)  # so that both are as before in the end
    monkeypatch.setitem(OPERATORS, "com.microsoft::CDist", None)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)
    commands = PAGE.read_text().split("```bash\n")[1].split("```")[0].splitlines()
    (command,) = (line for line in commands if line.startswith("onnxplain "))
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    described = [
        onnxplain.load(path, "cpu").metadata.described_method
        for path in sorted(Path().glob("*.explain.onnx"))
    ]
    assert described == ["softplus, beta 5", "softplus, beta 5"]


def test_the_page_lists_every_parameter_of_every_method() -> None:
    rows = ["| method | parameter | default | what it is |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        for parameter in method.own:
            default = "`temperature`" if parameter.default is None else f"{parameter.default:g}"
            rows.append(f"| `{method.name}` | `{parameter.name}` | {default} | {parameter.help} |")
    table = PAGE.read_text().split("<!-- methods -->\n")[1].split("\n<!-- /methods -->")[0]
    assert table == "\n".join(rows)
