"""Fresh environments, of what is installed here."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def required(name: str, extras: Iterable[str] = ()) -> Iterator[Distribution]:
    """A distribution that is installed here, and what it and these extras of it require."""
    todo, seen = [(name, frozenset(extras))], set()
    while todo:
        asked = name, extras = todo.pop()
        if asked in seen:
            continue
        seen.add(asked)
        yield (found := distribution(name))
        for requirement in map(Requirement, found.requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras or ("",)):
                todo.append((requirement.name, frozenset(requirement.extras)))


def environment(folder: Path, extras: Iterable[str] = ()) -> Path:
    """Make one with what onnxplain and these extras require, and no more; not onnxplain itself.

    Returns:
        Its folder of packages.
    """
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for found in required("onnxplain", extras):
        if found.name == "onnxplain":
            continue
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return packages
