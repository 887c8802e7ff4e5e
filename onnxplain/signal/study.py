"""The study: classifiers compared by the signal that each of them lets in."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import text
from onnxplain.signal import classifiers, training
from onnxplain.signal.compiled import open_graph
from onnxplain.signal.data import Data, open_data, require_classes
from onnxplain.signal.export import export_autoencoder, export_classifier
from onnxplain.signal.measurement import Measurement, measure
from onnxplain.signal.results import Results, results_of
from onnxplain.signal.settings import Settings, changed
from onnxplain.signal.weights import start_from

UNTUNED, ORIGINALS = "reconstruction alone", "originals"
"""Two signals besides the classifiers' own: the autoencoder's before tuning, and the originals."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Study:
    """What a study depends on; on one machine the same study gives the same results.

    Attributes:
        settings: the trainings'; all decoders are tuned starting from one autoencoder.
        classifiers: each a key of `onnxplain.signal.classifiers.SMALL`, trained here, or anything
            that `open_classifier` takes.
        classifier_epochs: how long the small ones are trained.
    """

    settings: Settings
    classifiers: tuple[str, ...]
    classifier_epochs: int = 20

    @property
    def names(self) -> list[str]:
        """The classifiers' names, also used for their files."""
        return [_file_name(name) for name in self.classifiers]

    def untuned(self) -> Settings:
        """The training of the autoencoder before tuning."""
        return replace(self.settings, classifier=None)

    def tuned(self, classifier: str, start: str | None) -> Settings:
        """The training of one classifier's decoder."""
        channels = self.channels_of(start)
        return replace(
            self.settings, classifier=classifier, start=start, channels=channels, epochs=0
        )

    def channels_of(self, weights: str | None) -> str:
        """What the autoencoder in that file takes: RGB, unless it is the authors'."""
        return self.settings.channels if weights == self.settings.start else "rgb"

    def entries(self) -> dict[str, Any]:
        """What `study.json` holds."""
        shared = dataclasses.asdict(self.settings)
        own = {"classifiers": self.classifiers, "classifier_epochs": self.classifier_epochs}
        return {k: v for k, v in shared.items() if k not in ("classifier", "weights")} | own

    def check(self) -> None:
        """Raise InputError for what cannot be studied."""
        names = self.names
        if len(names) < 2:
            raise InputError("a study compares two classifiers at least: give more of them")
        if len(set(names)) < len(names):
            raise InputError(f"two classifiers have the same name: {', '.join(names)}")
        if not self.settings.tune_epochs or not (self.settings.epochs or self.settings.start):
            raise InputError("a study needs epochs of tuning, and epochs or a start before them")


def run_study(
    study: Study, folder: Path, provider: str = "auto", progress: Progress | None = None
) -> Results:
    """Do what remains of a study: train, export, measure.

    Into the folder go `study.json`, `classifiers/`, `autoencoder/` and `signals/NAME/` (as `train`
    writes them), `graphs/` (ONNX: each autoencoder, each classifier), `measured/` and
    `results.json`. What already exists is used; a training resumes from its checkpoint.

    Args:
        study: what to compare.
        folder: created if missing.
        provider: what runs the graphs, as for `onnxplain.signal.compiled.open_graph`.
        progress: told about each part.

    Raises:
        InputError: the folder holds another study; or as for `train`.
        SourceError: no such classifier.
        BackendError: the runtime failed.
    """
    study.check()
    _prepare(study, folder)
    tell = progress or (lambda what, done, total: None)
    settings = study.settings
    data = open_data(settings.data, settings.size, settings.seed)
    require_classes(data, settings.data)
    networks = {
        name: _classifier(study, given, name, data, folder, tell)
        for given, name in zip(study.classifiers, study.names, strict=True)
    }
    # Before the trainings, so that a classifier that cannot be exported is known at once.
    graphs = _export_classifiers(folder, networks, data, tell)
    skipped = _train(study, folder, networks, tell)
    graphs |= _export_signals(study, folder, data, tell)
    measured = _measure(study, folder, graphs, data, provider, tell)
    for signal in measured.values():
        skipped.update(data.test.source.name(index) for index in signal.unreadable)
    sizes = {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    results = results_of(study.names, measured, sizes, data, settings.seed, sorted(skipped))
    with replacing(folder / "results.json") as beside:
        beside.write_text(json.dumps(results.to_dict(), indent=1) + "\n")
    return results


def _file_name(classifier: str) -> str:
    name = Path(classifier).stem if classifier.endswith((".pt", ".pth")) else classifier
    return re.sub(r"[^\w.-]+", "-", name)


def _prepare(study: Study, folder: Path) -> None:
    entries = json.loads(json.dumps(study.entries()))
    path = folder / "study.json"
    try:
        for part in ("classifiers", "signals", "graphs", "measured"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        before = json.loads(text(path)) if path.exists() else entries
    except (OSError, ValueError) as error:
        raise InputError(f"'{folder}' cannot hold a study: {error}") from error
    if names := changed(before, entries):
        raise InputError(
            f"'{folder}' holds a study with other settings ({', '.join(names)}): give those in "
            "its study.json, or another folder"
        )
    with replacing(path) as beside:
        beside.write_text(json.dumps(entries, indent=2) + "\n")


def _classifier(
    study: Study, given: str, name: str, data: Data, folder: Path, tell: Progress
) -> nn.Module:
    if given not in classifiers.SMALL:
        return classifiers.open_classifier(given, data)
    path = folder / "classifiers" / f"{name}.pt"
    if not path.exists():
        what = f"training the classifier {name}"
        classifiers.train_small(
            name, data, path, study.classifier_epochs, study.settings.seed,
            lambda done, total, loss: tell(f"{what}, loss {loss:.3f}", done, total),
        )  # fmt: skip
    return classifiers.open_classifier(str(path), data)


def _train(study: Study, folder: Path, networks: dict[str, nn.Module], tell: Progress) -> set[str]:
    """The autoencoder, then each decoder's tuning; names of pictures that could not be read."""
    start, skipped = study.settings.start, set()
    if study.settings.epochs:
        done = _trained(study.untuned(), folder / "autoencoder", None, "the autoencoder", tell)
        skipped.update(done.skipped)
        start = str(folder / "autoencoder" / training.AUTOENCODER)
    for name, network in networks.items():
        done = _trained(
            study.tuned(name, start), folder / "signals" / name, network, f"for {name}", tell
        )
        skipped.update(done.skipped)
    return skipped


def _trained(
    settings: Settings, folder: Path, network: nn.Module | None, what: str, tell: Progress
) -> training.Outcome:
    return training.train(
        settings,
        folder,
        resume=(folder / "config.json").exists(),
        classifier=network,
        progress=lambda stage, done, total, loss: tell(
            f"{stage} {what}, loss {loss:.4f}", done, total
        ),
    )


def _export_classifiers(
    folder: Path, networks: dict[str, nn.Module], data: Data, tell: Progress
) -> dict[str, Path]:
    """Graphs by kind and name: "classifier NAME"."""
    found: dict[str, Path] = {}
    for name, network in networks.items():
        path = folder / "graphs" / f"classifier-{name}.onnx"
        tell("exporting the classifiers", len(found), len(networks))
        if not path.exists():
            export_classifier(network, path, data.channels, data.size, data.classes)
        found[f"classifier {name}"] = path
    return found


def _export_signals(study: Study, folder: Path, data: Data, tell: Progress) -> dict[str, Path]:
    """Graphs of the autoencoders: "signal NAME"."""
    settings, first = study.settings, str(folder / "autoencoder" / training.AUTOENCODER)
    if settings.start and not settings.epochs:
        first = settings.start
    sources = {UNTUNED: first} | {
        name: str(folder / "signals" / name / training.AUTOENCODER) for name in study.names
    }
    found: dict[str, Path] = {}
    for name, source in sources.items():
        path = folder / "graphs" / f"signal-{'untuned' if name == UNTUNED else name}.onnx"
        tell("exporting the autoencoders", len(found), len(sources))
        if not path.exists():
            network = start_from(
                Path(source), settings.size, data.channels, study.channels_of(source)
            )
            export_autoencoder(network, path)
        found[f"signal {name}"] = path
    return found


def _measure(
    study: Study,
    folder: Path,
    graphs: dict[str, Path],
    data: Data,
    provider: str,
    tell: Progress,
) -> dict[str, Measurement]:
    """Every signal, as every classifier sees it."""
    names = study.names
    networks = None
    found = {}
    for number, signal in enumerate([ORIGINALS, UNTUNED, *names]):
        path = folder / "measured" / f"{number}.npz"
        if not path.exists():
            networks = networks or [open_graph(graphs[f"classifier {n}"], provider) for n in names]
            own = None if signal == ORIGINALS else open_graph(graphs[f"signal {signal}"], provider)
            about = partial(tell, f"measuring {signal}")
            measure(own, networks, data.test, study.settings.batch, about).write(path)
        found[signal] = Measurement.read(path)
    return found
