"""The names of networks, and the packages that these need; torchvision's and timm's names are read
where they are declared, as to import these costs seconds."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from onnxplain.errors import SourceError
from onnxplain.extras import EXPORTING, LITE0, TORCH, require
from onnxplain.suggest import nearest, spelled

FILES = (".onnx", ".pt", ".pth", ".pt2")
"""How the names of files that hold networks end: ONNX, TorchScript twice, `torch.export`."""

EFFICIENTNET_LITE0 = "efficientnet-lite0"

TIMM = "timm/"
"""`timm/pvt_v2_b1`, `timm/resnet50.a1_in1k`: the names that timm and the Hugging Face hub use."""

_DECLARED = re.compile(
    r"^@register_model\((?:name=\"(?P<name>\w+)\")?\)\n(?:.*\n)*?def (?P<builder>\w+)\(", re.M
)
_OF_TIMM = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.M)


def canonical(name: str) -> str:
    """How a network's name is spelled where it is from.

    Raises:
        SourceError: there is none of that name that is a classifier.
    """
    if name.startswith(TIMM):
        _check_timm(name.removeprefix(TIMM))
        return name
    require("torch", "exporting from PyTorch", TORCH)
    classifiers, others = torchvision_names()
    known = [EFFICIENTNET_LITE0, *classifiers]
    if (found := spelled(name, known)) is not None:
        return found
    if spelled(name, others) is not None:
        raise SourceError(
            f"{name!r} of torchvision's is no image classifier: make it in Python, and export "
            "the module: export(torchvision.models.get_model(name), path, example=x)"
        )
    raise SourceError(
        f"no network {name!r}: it is neither a file, nor {EFFICIENTNET_LITE0!r}, nor one of "
        f"torchvision's classifiers, nor {TIMM}NAME of timm's; {nearest(name, known)}"
    )


def require_for(source: object) -> None:
    """Look for the packages that an export from a source needs, as far as its name tells, and
    import none of them.

    Raises:
        MissingPackageError: one is not installed.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    if name.endswith(".onnx"):
        require("export", name, EXPORTING)
    elif name.startswith(TIMM):
        require("zoo", name, (*TORCH, "timm"))
    elif name and Path(name).is_dir():
        require("zoo", name, (*TORCH, "transformers"))
    elif spelled(name, [EFFICIENTNET_LITE0]):
        require("demo", name, LITE0)
    else:
        require("torch", "exporting from PyTorch", TORCH)


@cache
def torchvision_names() -> tuple[list[str], list[str]]:
    """The classifiers' names, and those of all other networks; none where it is not installed."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return [], []
    models = Path(spec.origin).parent / "models"
    return _declared(models.glob("*.py")), _declared(models.glob("*/*.py"))


def not_of_timm(name: str, known: Iterable[str]) -> str:
    """What to say of a name that timm has no network of."""
    return f"timm has no network {name!r}; {nearest(name, known)}"


def _check_timm(name: str) -> None:
    """
    Raises:
        SourceError: timm's files do not have the word. Of others timm says it itself; and once it
            is imported of all, as more may be registered.
    """
    text = "" if "timm" in sys.modules else _timm_files()
    word = re.escape(name.partition(".")[0])
    if text and re.search(rf"\b{word}\b", text) is None:
        raise SourceError(not_of_timm(name, timm_names()))


def timm_names() -> list[str]:
    """Those that timm lists."""
    return _OF_TIMM.findall(_timm_files())


@cache
def _timm_files() -> str:
    """What declares timm's networks; empty where it is not installed."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return ""
    files = sorted((Path(spec.origin).parent / "models").glob("*.py"))
    return "\n".join(file.read_text("utf-8") for file in files)


def _declared(files: Iterable[Path]) -> list[str]:
    found = (one for file in sorted(files) for one in _DECLARED.finditer(file.read_text("utf-8")))
    return [one["name"] or one["builder"] for one in found]
