"""The names of torchvision's networks, read where they are declared: to import it costs seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_DECLARED = re.compile(
    r"^@register_model\((?:name=\"(?P<name>\w+)\")?\)\n(?:.*\n)*?def (?P<builder>\w+)\(", re.M
)


@cache
def torchvision_names() -> tuple[list[str], list[str]]:
    """The classifiers' names, and those of all other networks; none where it is not installed."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return [], []
    models = Path(spec.origin).parent / "models"
    return _declared(models.glob("*.py")), _declared(models.glob("*/*.py"))


def _declared(files: Iterable[Path]) -> list[str]:
    found = (one for file in sorted(files) for one in _DECLARED.finditer(file.read_text("utf-8")))
    return [one["name"] or one["builder"] for one in found]
