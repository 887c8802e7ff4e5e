"""One message and one exit status for each kind of error, in Python and on the command line, and
before anything heavy is imported."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain import errors, extras
from onnxplain.asking import Export
from onnxplain.cli import app
from onnxplain.cli.app import with_flags

SIZE = 12
HEAVY = (
    *("onnxruntime", "torch", "torchvision", "openvino", "onnx", "onnx_ir", "onnxscript", "sympy"),
    *("quantus", "scipy", "matplotlib", "timm", "transformers"),
)
OF_ARRAYS = "numpy", "PIL"  # which whatever runs a graph needs, and no question about an export


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its explain graph, a photograph and what is none."""
    place = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 3)
    network, x = torch.nn.Sequential(*layers), torch.zeros(1, 3, SIZE, SIZE)
    torch.onnx.export(network, (x,), place / "net.onnx", dynamo=False)
    onnxplain.export(network, place / "e.onnx", size=SIZE, labels=["red", "green", "blue"])
    Image.new("RGB", (20, 16), "teal").save(place / "cat.jpg")
    (place / "no.jpg").write_text("no picture")
    return place


REFUSED: dict[str, tuple[str, str, str, int]] = {
    "an unknown method": (
        "onnxplain.export('net.onnx', 'x.onnx', method='nonsense')",
        "export net.onnx -o x.onnx --method nonsense",
        "no method 'nonsense'",
        3,
    ),
    "a parameter that the method has not": (
        "onnxplain.export('net.onnx', 'x.onnx', parameters={'cow': 1})",
        "export net.onnx -o x.onnx --param cow=1",
        "has no cow",
        3,
    ),
    "a method of a product": (
        "onnxplain.export('net.onnx', 'x.onnx', method='guided*nonsense')",
        "export net.onnx -o x.onnx --method guided*nonsense",
        "no method 'nonsense'",
        3,
    ),
    "an estimator as a method": (
        "onnxplain.export('net.onnx', 'x.onnx', method='smooth-grad')",
        "export net.onnx -o x.onnx --method smooth-grad",
        "smoothgrad asks a method at many images",
        3,
    ),
    "an unknown estimator": (
        "onnxplain.export('net.onnx', 'x.onnx', estimator='nonsense')",
        "export net.onnx -o x.onnx --estimator nonsense",
        "no estimator 'nonsense'",
        3,
    ),
    "a parameter that neither has": (
        "onnxplain.export('net.onnx', 'x.onnx', estimator='ig', parameters={'cow': 1})",
        "export net.onnx -o x.onnx --estimator ig --param cow=1",
        "neither method 'excitation' nor estimator 'integrated-gradients' has cow",
        3,
    ),
    "a temperature of a method without": (
        "onnxplain.export('net.onnx', 'x.onnx', method='gradient', temperature=1)",
        "export net.onnx -o x.onnx --method gradient --temperature 1",
        "method 'gradient' has no temperature",
        3,
    ),
    "a temperature that is none": (
        "onnxplain.export('net.onnx', 'x.onnx', temperature=-1.0)",
        "export net.onnx -o x.onnx --temperature -1",
        "temperature must be a positive number, not -1",
        3,
    ),
    "a temperature of a product that is none": (
        "onnxplain.export('net.onnx', 'x.onnx', method='excitation*gradcam', temperature=-1.0)",
        "export net.onnx -o x.onnx --method excitation*gradcam --temperature -1",
        "temperature must be a positive number, not -1",
        3,
    ),
    "a parameter that a product has not": (
        "onnxplain.export('net.onnx', 'x.onnx', method='guided*gradcam', parameters={'cow': 1})",
        "export net.onnx -o x.onnx --method guided*gradcam --param cow=1",
        "method 'guided*gradcam' has no cow",
        3,
    ),
    "factors of which two have a parameter": (
        "onnxplain.export('net.onnx', 'x.onnx', method='excitation*excitation')",
        "export net.onnx -o x.onnx --method excitation*excitation",
        "two factors of 'excitation*excitation' have temperature",
        3,
    ),
    "a parameter out of its range": (
        "onnxplain.export('net.onnx', 'x.onnx', parameters={'relu': -1.0})",
        "export net.onnx -o x.onnx --param relu=-1",
        "relu must be a positive number, not -1.0",
        3,
    ),
    "an estimator's number out of its range": (
        "onnxplain.export('net.onnx', 'x.onnx', estimator='ig', parameters={'steps': 0.0})",
        "export net.onnx -o x.onnx --estimator ig --param steps=0",
        "steps must be a whole number from 1 to 10000, not 0.0",
        3,
    ),
    "an estimator's word that there is not": (
        "onnxplain.export('net.onnx', 'x.onnx', estimator='ig', parameters={'rule': 'cow'})",
        "export net.onnx -o x.onnx --estimator ig --param rule=cow",
        "rule must be one of gauss-legendre, trapezoid, not 'cow'",
        3,
    ),
    "a parameter that a method and an estimator both have": (
        "onnxplain.export('net.onnx', 'x.onnx', method='scorecam', estimator='smoothgrad', "
        "parameters={'chunk': 2.0})",
        "export net.onnx -o x.onnx --method scorecam --estimator smoothgrad --param chunk=2",
        "both have chunk; leave it out",
        3,
    ),
    "an ascent from a photograph's pixels": (
        "onnxplain.export('net.onnx', 'x.onnx', step=True, preprocess=True)",
        "export net.onnx -o x.onnx --step --preprocess",
        "leave out preprocess=True",
        3,
    ),
    "a step and all of them": (
        "onnxplain.export('net.onnx', 'x.onnx', step=True, unroll=5)",
        "export net.onnx -o x.onnx --step --unroll 5",
        "step is one step, unroll all of them",
        3,
    ),
    "pixels of a file that takes none": (
        "onnxplain.export('net.onnx', 'x.onnx', pixels='bgr')",
        "export net.onnx -o x.onnx --pixels bgr",
        "pixels= and geometry= are of a file that takes photographs: add preprocess=True",
        3,
    ),
    "an option that a picture has not": (
        "onnxplain.export('net.onnx', 'x.onnx', picture='overlay,cow=1')",
        "export net.onnx -o x.onnx --picture overlay,cow=1",
        "with commas between and each once, NAME=VALUE of colours, signed, alpha, transparent, "
        "percentile, smoothing; not 'cow=1'",
        3,
    ),
    "a number of a picture out of its range": (
        "onnxplain.export('net.onnx', 'x.onnx', picture='overlay,alpha=2')",
        "export net.onnx -o x.onnx --picture overlay,alpha=2",
        "alpha must be at most 1, not 2.0",
        3,
    ),
    "an unknown live parameter": (
        "onnxplain.export('net.onnx', 'x.onnx', live=['cow'])",
        "export net.onnx -o x.onnx --live cow",
        "has no cow",
        3,
    ),
    "an unknown rule": (
        "onnxplain.export('net.onnx', 'x.onnx', method='lrp', rules={'first': 'cow'})",
        "export net.onnx -o x.onnx --method lrp --rule first=cow",
        "no rule 'cow'",
        3,
    ),
    "an unknown objective": (
        "onnxplain.export('net.onnx', 'x.onnx', objective='nonsense')",
        "export net.onnx -o x.onnx --objective nonsense",
        "no objective 'nonsense'",
        3,
    ),
    "a choice that there is not": (
        "onnxplain.export('net.onnx', 'x.onnx', channels='grb')",
        "export net.onnx -o x.onnx --channels grb",
        "channels is rgb or bgr, not 'grb'",
        3,
    ),
    "no such file to export": (
        "onnxplain.export('none.onnx', 'x.onnx')",
        "export none.onnx -o x.onnx",
        "no such file: 'none.onnx'",
        3,
    ),
    "a path that cannot be written": (
        "onnxplain.export('net.onnx', 'none/x.onnx')",
        "export net.onnx -o none/x.onnx",
        "none",
        4,
    ),
    "an unknown precision": (
        "onnxplain.load('e.onnx', precision='int4')",
        "explain e.onnx cat.jpg --precision int4",
        "unknown precision 'int4'; known: float32",
        5,
    ),
    "a provider as ONNX Runtime calls it": (
        "onnxplain.load('e.onnx', 'CUDAExecutionProvider')",
        "explain e.onnx cat.jpg --provider CUDAExecutionProvider",
        "unknown provider 'CUDAExecutionProvider', which is cuda here; known: auto, cpu",
        5,
    ),
    "an unknown provider": (
        "onnxplain.load('e.onnx', 'gpu')",
        "explain e.onnx cat.jpg --provider gpu",
        "unknown provider 'gpu'; known: auto, cpu",
        5,
    ),
    "a file that is no explain graph": (
        "onnxplain.load('net.onnx')",
        "explain net.onnx cat.jpg",
        "not an explain graph",
        5,
    ),
    "no image": (
        "onnxplain.runtime.find_images('none/*.png')",
        "explain e.onnx none/*.png",
        "no image found at 'none/*.png'",
        4,
    ),
    "references that are a file": (
        "onnxplain.visualize('resnet50', target=0, references='cat.jpg')",
        "visualize resnet50 -t 0 -r cat.jpg",
        "'cat.jpg' is a file; name its folder",
        4,
    ),
    "an unknown precision of a visualisation": (
        "onnxplain.visualize('resnet50', target=0, references='.', precision='int4')",
        "visualize resnet50 -t 0 -r . --precision int4",
        "unknown precision 'int4'",
        5,
    ),
    "an unknown network": (
        "onnxplain.export('resnet51', 'x.onnx')",
        "export resnet51 -o x.onnx",
        "no network 'resnet51'",
        3,
    ),
    "an unknown network of timm's": (
        "onnxplain.export('timm/resnet51.a1', 'x.onnx')",
        "export timm/resnet51.a1 -o x.onnx",
        "timm has no network 'resnet51.a1'; did you mean",
        3,
    ),
    "a network that is no classifier": (
        "onnxplain.export('ssdlite320_mobilenet_v3_large', 'x.onnx')",
        "export ssdlite320_mobilenet_v3_large -o x.onnx",
        "no image classifier",
        3,
    ),
    "an unknown network to visualise": (
        "onnxplain.visualize('resnet51', target=0, references='.')",
        "visualize resnet51 -t 0 -r .",
        "no network 'resnet51'",
        3,
    ),
    "an order of images that there is not": (
        "onnxplain.vital.top_images('resnet50', '.', by='beauty')",
        "top-images resnet50 . --by beauty",
        "no order 'beauty'",
        4,
    ),
    "patches by their maxima": (
        "onnxplain.vital.top_images('resnet50', '.', by='max', patch=4)",
        "top-images resnet50 . --by max --patch 4",
        "patches are ranked by their means",
        4,
    ),
    "no image to rank": (
        "onnxplain.vital.top_images('resnet50', 'none')",
        "top-images resnet50 none",
        "no image found at 'none'",
        4,
    ),
    "a table that cannot be written": (
        "onnxplain.vital.top_images('resnet50', '.', path='none/t.json')",
        "top-images resnet50 . -o none/t.json",
        "cannot write none/t.json",
        4,
    ),
    "an unknown provider of a search": (
        "onnxplain.vital.top_images('resnet50', '.', provider='gpu')",
        "top-images resnet50 . --provider gpu",
        "unknown provider 'gpu'",
        5,
    ),
    "an unknown metric": (
        "onnxplain.evaluation.evaluate('e.onnx', 'cat.jpg', metrics=['nonsense'])",
        "evaluate e.onnx -i cat.jpg -m nonsense",
        "no metric 'nonsense'",
        4,
    ),
    "an unknown protocol": (
        "onnxplain.evaluation.evaluate('e.onnx', 'cat.jpg', protocol='nonsense')",
        "evaluate e.onnx -i cat.jpg --protocol nonsense",
        "no protocol 'nonsense'",
        4,
    ),
    "no image to evaluate by": (
        "onnxplain.evaluation.evaluate('e.onnx', 'none')",
        "evaluate e.onnx -i none",
        "no image found at 'none'",
        4,
    ),
    "an unknown provider to evaluate by": (
        "onnxplain.evaluation.evaluate('e.onnx', 'cat.jpg', provider='gpu')",
        "evaluate e.onnx -i cat.jpg --provider gpu",
        "unknown provider 'gpu'; known: auto, cpu",
        5,
    ),
    "a class that no visualisation has": (
        "onnxplain.visualize('resnet50', references='.')",
        "visualize resnet50 -r .",
        "give a target",
        4,
    ),
}
"""Name → in Python, on the command line, what both say, and the exit status."""

IN_PYTHON: dict[str, tuple[str, str]] = {
    "one number for several": (
        "onnxplain.export('net.onnx', 'x.onnx', mean=0.5)",
        "mean must be a sequence of numbers, not 0.5",
    ),
    "a module as a layer": (
        "onnxplain.export('net.onnx', 'x.onnx', method='gradcam', layer=object())",
        "layer must be a string or a sequence of strings, not <object",
    ),
    "a size in words": ("onnxplain.export('net.onnx', 'x.onnx', size='big')", "size is a number"),
}

ON_THE_COMMAND_LINE: dict[str, tuple[str, str, int]] = {
    "a class without such a name": ("explain e.onnx cat.jpg -t purple", "'purple' is unknown", 4),
    "a class out of range": ("explain e.onnx cat.jpg -t 3", "target 3 is out of range", 4),
    "a temperature that is not live": (
        "explain e.onnx cat.jpg --temperature 2",
        "export it with --live-temperature",
        4,
    ),
    "a style that there is not": ("explain e.onnx cat.jpg --style neon", "style is one of", 4),
    "no image of a report": ("report e.onnx none/", "no image found at", 4),
    "no image to accentuate": ("accentuate e.onnx none/", "no image found at", 4),
    "when to clip that there is not": (
        "accentuate e.onnx cat.jpg --clip nonsense",
        "clip is one of each, last, none, or a number of steps, not 'nonsense'",
        4,
    ),
    "an accentuated class without such a name": (
        "accentuate e.onnx cat.jpg -t purple",
        "'purple' is unknown",
        4,
    ),
    "an accentuation that cannot be written": (
        "accentuate e.onnx cat.jpg -o none/a.png",
        "cannot write none/a.png",
        4,
    ),
    "an accentuation that is no picture": (
        "accentuate e.onnx cat.jpg -o a.txt",
        "no suffix of a picture's format",
        4,
    ),
    "an animation that does not move": (
        "accentuate e.onnx cat.jpg --animate a.jpg",
        "an animation is a .gif, .png or .webp",
        4,
    ),
    "a sheet of no channel": ("top-images resnet50 . --sheet s.png", "--channel", 4),
    "a sheet that is no picture": (
        "top-images resnet50 . -c 1 --sheet s.txt",
        "no suffix of a picture's format",
        4,
    ),
    "a size of top images in words": ("top-images resnet50 . --size big", "not 'big'", 4),
    "an unknown network of a gallery": ("gallery cat.jpg -n resnet51", "no network 'resnet51'", 3),
    "an unknown method of a gallery": (
        "gallery cat.jpg -n resnet50 -m nonsense",
        "no method 'nonsense'",
        3,
    ),
    "an unknown provider of a gallery": (
        "gallery cat.jpg -n resnet50 --provider gpu",
        "unknown provider 'gpu'",
        5,
    ),
    "an unknown network to tune": ("tune resnet51 cat.jpg", "no network 'resnet51'", 3),
    "an unknown method to tune": ("tune net.onnx cat.jpg --method x", "no method 'x'", 3),
    "an unknown method to choose from": (
        "choose net.onnx -i cat.jpg --methods gradient,x",
        "no method 'x'",
        3,
    ),
    "an unknown estimator to choose from": (
        "choose net.onnx -i cat.jpg --estimators x",
        "no estimator 'x'",
        3,
    ),
    "no image to choose by": ("choose net.onnx -i none", "no image found at 'none'", 4),
    "no image, and a parameter that one of the methods to choose from has": (
        "choose net.onnx -i none --methods gradient,lrp --param epsilon=0.1",
        "no image found at 'none'",
        4,
    ),
    "an unknown network to measure": ("bench resnet51", "no network 'resnet51'", 3),
    "an unknown network to explain": ("explain resnet51 cat.jpg", "no network 'resnet51'", 3),
    "an unknown method to explain by": (
        "explain resnet50 cat.jpg --method x",
        "no method 'x'",
        3,
    ),
    "a temperature in words": ("export net.onnx --temperature hot", "a number or auto", 4),
    "wrong usage": ("explain e.onnx cat.jpg --colour red", "No such option", 2),
}

ASKED: dict[str, tuple[str, bool]] = {
    **{f"python: {name}": (one[0], True) for name, one in (REFUSED | IN_PYTHON).items()},
    **{f"shell: {name}": (one[1], False) for name, one in REFUSED.items()},
    **{f"shell: {name}": (one[0], False) for name, one in ON_THE_COMMAND_LINE.items()},
}
"""Name → what is asked, and whether in Python."""

SCRIPT = """
import json, sys
from typer.testing import CliRunner
import onnxplain.evaluation
from onnxplain.cli import app

said = {}
for name, (what, python) in json.loads(sys.argv[1]).items():
    if python:
        try:
            eval(what)
            found = ["nothing", None]
        except onnxplain.OnnxplainError as error:
            found = [str(error), error.exit_code]
    else:
        done = CliRunner().invoke(app, what.split())
        found = [" ".join(done.output.split()), done.exit_code]
    said[name] = [*found, [heavy for heavy in HEAVY if heavy in sys.modules]]
print(json.dumps(said))
"""


def about_export(what: str) -> bool:
    return what.startswith(("export ", "onnxplain.export("))


@pytest.fixture(scope="module")
def said(place: Path) -> dict[str, Any]:
    """What is said to each, the exit status, and what heavy packages were imported until then."""
    first = dict(sorted(ASKED.items(), key=lambda one: not about_export(one[1][0])))
    script = SCRIPT.replace("in HEAVY", f"in {HEAVY + OF_ARRAYS}")
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(first)],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_python_and_the_command_line_say_the_same(name: str, said: dict[str, Any]) -> None:
    _, _, wanted, status = REFUSED[name]
    (message, code, _), (output, exit_status, _) = said[f"python: {name}"], said[f"shell: {name}"]
    assert wanted in message
    assert (code, exit_status) == (status, status)
    assert " ".join(with_flags(message).split()) in output


@pytest.mark.parametrize("name", IN_PYTHON)
def test_python_refuses(name: str, said: dict[str, Any]) -> None:
    message, code, _ = said[f"python: {name}"]
    assert IN_PYTHON[name][1] in message
    assert code == 4


@pytest.mark.parametrize("name", ON_THE_COMMAND_LINE)
def test_the_command_line_refuses(name: str, said: dict[str, Any]) -> None:
    _, wanted, status = ON_THE_COMMAND_LINE[name]
    output, exit_status, _ = said[f"shell: {name}"]
    assert exit_status == status
    assert wanted in output


def test_nothing_heavy_is_imported_for_that(said: dict[str, Any]) -> None:
    found = {name: set(heavy) - {*OF_ARRAYS} for name, (_, _, heavy) in said.items()}
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_nor_numpy_and_pillow_to_ask_about_an_export(said: dict[str, Any]) -> None:
    found = {name: said[name][2] for name, (what, _) in ASKED.items() if about_export(what)}
    assert len(found) > 20
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_what_stands_for_the_export_until_it_is_imported_says_what_it_is() -> None:
    stands, package = Export("onnxplain.export"), import_module("onnxplain.export")
    assert inspect.getdoc(stands) == inspect.getdoc(package) != inspect.getdoc(Export)
    assert inspect.signature(stands) == inspect.signature(package)


# ----- exit statuses -----


def kinds(of: type[Exception] = errors.OnnxplainError) -> set[type[Exception]]:
    return {of, *(kind for one in of.__subclasses__() for kind in kinds(one))}


def test_every_kind_of_error_has_a_status_of_the_table() -> None:
    for kind in kinds():
        assert kind.exit_code in errors.EXIT  # type: ignore[attr-defined]


def test_the_page_has_the_table_of_exit_statuses() -> None:
    page = (Path(__file__).parent.parent / "docs" / "start.md").read_text()
    rows = "".join(f"| {status} | {meaning} |\n" for status, meaning in errors.EXIT.items())
    assert page.endswith(f"| --- | --- |\n{rows}")


# ----- extras -----


def test_the_extras_bring_the_packages_that_are_said_to_be_theirs() -> None:
    names = packages_distributions()
    required: dict[str, set[str]] = {extra: set() for extra in extras.EXTRAS}
    for requirement in map(Requirement, requires("onnxplain") or []):
        for extra, own in required.items():
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
                own.add(requirement.name.lower().replace("_", "-"))
    required["evaluate"].add("scipy")  # Quantus requires it
    required["zoo"] |= {"huggingface-hub", "safetensors"}  # transformers requires them
    for extra, packages in extras.EXTRAS.items():
        for package in packages:
            if package in names:  # not every runtime can be installed everywhere
                own = {name.lower().replace("_", "-") for name in names[package]}
                assert own & required[extra], (extra, package)


@pytest.mark.parametrize(
    ("asked", "missing", "extra"),
    [
        ("export timm/resnet18", ("onnx_ir", "torch", "timm"), "zoo"),
        ("export efficientnet_lite0", ("onnx_ir", "efficientnet_lite_pytorch"), "demo"),
        ("export resnet18", ("onnx_ir", "torch"), "torch"),
        ("export net.onnx", ("onnx_ir", "torch"), "export"),
        ("methods", ("onnx_ir",), "export"),
    ],
)
def test_one_line_names_the_whole_extra(
    asked: str, missing: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    done = CliRunner().invoke(app, asked.split())
    assert done.exit_code == 5
    assert done.output.strip().endswith(f'pip install "onnxplain[{extra}]"')
    assert done.output.count("\n") == 1


def test_python_raises_an_import_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.startswith("onnxplain.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(onnxplain, "export")
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(ImportError, match=r'onnx_ir: pip install "onnxplain\[torch\]"') as raised:
        _ = onnxplain.export.METHODS
    assert isinstance(raised.value, onnxplain.OnnxplainError)
