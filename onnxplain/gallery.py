"""One folder of photographs, by networks, by methods: one page to pass on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxplain.asking import check_source
from onnxplain.contract.explain import METHOD
from onnxplain.contract.names import check_names
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import InputError, SourceError
from onnxplain.files import replacing, scratch
from onnxplain.named import graph_of, is_name
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.loading import signature_of
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.pictures import page, wall
from onnxplain.runtime.pictures.figures import Row
from onnxplain.runtime.pictures.markup import Markup, now
from onnxplain.runtime.sessions.providers import check_provider
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX
from onnxplain.version import __version__

METHODS = ("excitation", "gradcam", "lrp-epsilon-plus", "gradient")
"""Shown unless others are asked for: one of each kind of picture, and the plain gradient."""


@dataclass
class _Shown:
    """What a page shows of one network.

    Attributes:
        rows: what it says of each photograph, by the first method that is for it.
        targets: the class that is explained of each; None of what is no classifier.
        figures: its pictures of each.
    """

    name: str
    rows: dict[Path, Row] = field(default_factory=dict)
    targets: dict[Path, Any] = field(default_factory=dict)
    figures: dict[Path, list[Markup]] = field(default_factory=dict)

    def add(self, explainer: Explainer, method: str, images: Sequence[Path]) -> None:
        """The pictures by a method; what the first one explains, all do."""
        metadata = explainer.metadata
        metadata.require_input("a gallery")
        for file in images:
            explanation = explainer(file, self.targets.get(file))
            row = explanation.rows()[0]
            if file not in self.rows:
                self.rows[file] = row
                self.targets[file] = explanation.targets if explanation.is_of_class else None
            seen, pullback = row.photograph, row.pullbacks[0]
            name = metadata.described_method if "temperature" in metadata.parameters else method
            picture = wall.figure(name, metadata.kind, seen, pullback, file.name)
            self.figures.setdefault(file, []).append(picture)


def write_gallery(
    networks: Sequence[Path],
    images: Sequence[Path],
    path: Path,
    *,
    methods: Sequence[str] = METHODS,
    provider: str = "auto",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[tuple[Path, str]]:
    """Explain photographs by several networks and methods on one HTML page, which opens from disk
    and asks the network for nothing.

    A method that is not for a network is named there with the reason.

    Args:
        networks: names, exported into the cache; explain graphs and engines, each by its own
            method; or other files as for `onnxplain.export`.
        images: files; `find_images` finds them. One that cannot be read is named on the page.
        path: the .html file to write; it is replaced as a whole or not at all.
        methods: by which to explain.
        provider: as for `onnxplain.load`.
        progress: called with how many files of how many are open, and which one is next.

    Returns:
        The images that could not be read, each with the reason.

    Raises:
        InputError: no network, image or method, or a path that cannot be written.
        SourceError: a network cannot be read, or none of the methods is for it.
        BackendError: the runtime failed, or a file explains no images.
    """
    if not (networks and images and methods):
        raise InputError("a gallery has a network, an image and a method at least")
    check_provider(provider)
    for network in filter(is_name, networks):
        check_source(network)
    for method in methods:
        check_names(ExportOptions(method=method))
    asked = [(network, _methods_of(network, methods)) for network in networks]
    total, done = sum(len(own) for _, own in asked), 0
    good, failures = _readable(images)
    shown = []
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="replace") as out:
        with scratch() as folder:
            for network, own in asked:
                one = _Shown(_title(network))
                for method in own:
                    progress(done, total, f"{one.name}, {method}")
                    done += 1
                    try:
                        graph = _graph(network, method, folder)
                    except SourceError as error:
                        if method == own[-1] and not one.rows:
                            raise
                        for file in good:
                            one.figures.setdefault(file, []).append(wall.refused(method, error))
                    else:
                        one.add(load(graph, provider), method, good)
                shown.append(one)
        _write(out.write, shown, good, failures)
    return failures


def _readable(images: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are images, and the others, each with the reason."""
    good, failures = [], []
    for file in images:
        try:
            load_image(file)
            good.append(file)
        except InputError as error:
            failures.append((file, str(error)))
    return good, failures


def _own_method(network: Path) -> str | None:
    """That of an explain graph or an engine; None of another network."""
    if network.suffix == SUFFIX:
        return signature_of(network).metadata.method
    if is_name(network) or network.suffix != ".onnx":
        return None
    return read_metadata(network).get(METHOD)


def _methods_of(network: Path, methods: Sequence[str]) -> Sequence[str]:
    own = _own_method(network)
    return methods if own is None else [own]


def _title(network: Path) -> str:
    return str(network) if is_name(network) else network.name.removesuffix(".onnx")


def _graph(network: Path, method: str, folder: Path) -> Path:
    """The file that explains a network by a method.

    Raises:
        SourceError: it is not for the network.
    """
    if is_name(network):
        return graph_of(network, method)
    if _own_method(network) is not None:
        return network
    from onnxplain.export import export

    graph = folder / "network.explain.onnx"
    export(network, graph, method=method)
    return graph


def _write(
    write: Callable[[str], Any],
    networks: Sequence[_Shown],
    good: Sequence[Path],
    failures: Sequence[tuple[Path, str]],
) -> None:
    counts = Counter(file.name for file in [*good, *(file for file, _ in failures)])
    facts = [now(), f"onnxplain {__version__}"]
    before, after = wall.frame([one.name for one in networks], facts)

    def name(file: Path) -> str:
        return file.name if counts[file.name] == 1 else str(file)

    write(before)
    for file in good:
        sections = [wall.section(one.name, one.rows[file], one.figures[file]) for one in networks]
        write(wall.article(name(file), file, networks[0].rows[file], sections) + "\n")
    for file, reason in failures:
        write(page.failure(name(file), file, reason) + "\n")
    write(after)
