"""What a training is told, kept beside its weights as `config.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import replacing

CONFIG = "config.json"
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """What a training depends on; the same settings give the same weights on one machine.

    Attributes:
        data: as for `onnxplain.signal.data.open_data`.
        size: of the square pictures, in pixels.
        autoencoder: a key of `onnxplain.signal.autoencoder.WIDTHS`; ignored with `start`.
        start: weights to begin with: ours, or the authors'.
        classifier: whose gradients fine-tune the decoder; None for reconstruction alone.
        weights: the classifier's, where it is a name: DEFAULT, none or a file.
        epochs: of stage 1, reconstruction.
        tune_epochs: of stage 2, the classifier's gradients.
        batch: pictures of a step, in each process.
        rate, tune_rate: Adam's step size at the start of a stage; it falls to 0 along a cosine.
        precision: "float32"; "bfloat16" or "float16" for mixed precision.
        seed: of the first weights, the order and the random squares.
        workers: processes that decode pictures, for each that trains.
    """

    data: str
    size: int = 224
    autoencoder: str = "segnet"
    start: str | None = None
    classifier: str | None = None
    weights: str = "DEFAULT"
    epochs: int = 10
    tune_epochs: int = 5
    batch: int = 32
    rate: float = 1e-3
    tune_rate: float = 1e-4
    precision: str = "float32"
    seed: int = 0
    workers: int = 0

    def check(self) -> None:
        """Raise InputError for what cannot be trained."""
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.batch < 1 or self.workers < 0 or min(self.epochs, self.tune_epochs) < 0:
            raise InputError("batch is at least 1; epochs and workers are not negative")
        if not (self.rate > 0 and self.tune_rate > 0):
            raise InputError("the rates are positive")
        if not self.epochs and not (self.classifier and self.tune_epochs):
            raise InputError("there is nothing to train: give epochs, or a classifier")

    def write(self, folder: Path) -> None:
        """Raises InputError where the folder cannot be written."""
        with replacing(folder / CONFIG) as beside:
            beside.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Raises InputError for no such file, or one that is not a training's."""
        try:
            return cls(**json.loads((folder / CONFIG).read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"'{folder / CONFIG}' cannot be read: {error}") from error


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the entries that differ, of those that matter to what goes on.

    `workers` only decode. Of `start` the file's name matters: its folder may have moved, and what
    has a checkpoint reads it no more.
    """

    def compared(entries: Mapping[str, Any], name: str) -> Any:
        value = entries.get(name)
        return Path(value).name if name == "start" and value else value

    names = sorted({*before, *now} - {"workers"})
    return [name for name in names if compared(before, name) != compared(now, name)]
