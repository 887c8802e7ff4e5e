"""onnxplain extended from outside: the package that docs/extending.md shows, installed."""

from __future__ import annotations

import os
import re
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
from onnx import TensorProto, helper, numpy_helper

import onnxplain
from onnxplain.export import METHODS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "extending.md"
EXAMPLE = ROOT / "examples" / "extension"
RANDOM = np.random.default_rng(0)
FILTERS = RANDOM.normal(size=(8, 3, 3, 3)).astype(np.float32)
PROTOTYPES = RANDOM.normal(size=(4, 8)).astype(np.float32)
IMAGES = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)


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
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["z"], pads=[1] * 4),
        helper.make_node("Relu", ["z"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node(
            "CDist", ["features", "prototypes"], ["distance"],
            domain="com.microsoft", metric="sqeuclidean",
        ),
        helper.make_node("Neg", ["distance"], ["logits"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "prototypes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(FILTERS, "filters"),
            numpy_helper.from_array(PROTOTYPES, "prototypes"),
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path_factory.mktemp("prototypes") / "prototypes.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
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


def pullback(targets: list[int], beta: float) -> np.ndarray:
    """Of the classifier above, by PyTorch: its own forward, ReLU's slope σ(βz)."""
    x = torch.from_numpy(IMAGES).double().requires_grad_()
    z = torch.nn.functional.conv2d(x, torch.from_numpy(FILTERS).double(), padding=1)
    features = z.relu().mean((2, 3))
    rows = torch.from_numpy(PROTOTYPES).double()[targets]
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
    np.testing.assert_allclose(explanation.pullback, pullback([1, 3], 0.5), rtol=1e-4, atol=1e-6)


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
    example = (EXAMPLE / "acme.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    shown = [block for block in blocks if "onnxplain.export(" not in block]
    assert len(shown) == 4
    for block in shown:
        assert block in example or textwrap.indent(block, "    ") in example


def test_the_page_lists_every_parameter_of_every_method() -> None:
    rows = ["| method | parameter | default | what it is |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        for parameter in method.parameters:
            default = "`temperature`" if parameter.default is None else f"{parameter.default:g}"
            rows.append(f"| `{method.name}` | `{parameter.name}` | {default} | {parameter.help} |")
    table = PAGE.read_text().split("<!-- methods -->\n")[1].split("\n<!-- /methods -->")[0]
    assert table == "\n".join(rows)
