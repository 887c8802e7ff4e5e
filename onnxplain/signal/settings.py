"""The settings of a training, kept next to its weights as `config.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxplain import options
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.options import argument, option
from onnxplain.reading import text

CONFIG = "config.json"
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """What a training depends on; the same settings give the same weights on one machine.

    With `start`, `autoencoder` is ignored; without a classifier only the reconstruction is trained.
    """

    data: str = argument(
        "A folder of class folders, or of `train` and `test` with those; `digits` "
        "(scikit-learn's); or NAME:FOLDER of a torchvision dataset, `CIFAR10:data`. For "
        "reconstruction alone, also a folder of pictures."
    )
    size: int = option(224, "Width and height of the pictures, in pixels.", least=1)
    autoencoder: str = option(
        "segnet", "segnet (the paper's), or segnet-small or segnet-tiny for small pictures."
    )
    start: str | None = option(
        None, "Weights to begin with: a training's autoencoder.pt, or the authors'."
    )
    channels: str = option(
        "rgb",
        "For the authors' weights: rgb, as their published script feeds them; or bgr.",
        choices=("rgb", "bgr"),
    )
    classifier: str | None = option(
        None,
        "The classifier whose gradients tune the decoder: a name as for `onnxplain export`, or a "
        "TorchScript file. Without one, only the reconstruction is trained.",
        short="c",
    )
    weights: str = option(
        "DEFAULT", "For a classifier by name: DEFAULT (pretrained), none, or a checkpoint's path."
    )
    epochs: int = option(10, "Epochs of stage 1, reconstruction.", least=0)
    tune_epochs: int = option(5, "Epochs of stage 2, the classifier's gradients.", least=0)
    batch: int = option(32, "Pictures per step, in each process.", least=1)
    rate: float = option(1e-3, "Adam's step size at the start of stage 1; it falls along a cosine.")
    tune_rate: float = option(1e-4, "The same for stage 2.")
    precision: str = option(
        "float32",
        "float32; or bfloat16, or float16 (on a GPU), for mixed precision.",
        choices=PRECISIONS,
    )
    seed: int = option(0, "Seed for the weights, the order and the random crops.", least=0)
    workers: int = option(0, "Processes that decode pictures, for each that trains.", least=0)

    def check(self) -> None:
        """Raise InputError for what cannot be trained."""
        options.check(self)
        if not (self.rate > 0 and self.tune_rate > 0):
            raise InputError("the rates must be positive")
        if self.channels != "rgb" and self.start is None:
            raise InputError("channels are those of the weights to begin with: give start=")
        if not self.epochs and not (self.classifier and self.tune_epochs):
            raise InputError("there is nothing to train: give epochs, or a classifier")

    def write(self, folder: Path) -> None:
        """Raises InputError if the folder cannot be written."""
        with replacing(folder / CONFIG) as beside:
            beside.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Raises InputError if there is no such file, or it is not a training's."""
        try:
            return cls(**json.loads(text(folder / CONFIG)))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"'{folder / CONFIG}' cannot be read: {error}") from error


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of entries that differ and matter for resuming.

    `workers` only decode. For `start` only the file's name matters: its folder may have moved, and
    with a checkpoint it is no longer read.
    """

    def compared(entries: Mapping[str, Any], name: str) -> Any:
        value = entries.get(name)
        return Path(value).name if name == "start" and value else value

    names = sorted({*before, *now} - {"workers"})
    return [name for name in names if compared(before, name) != compared(now, name)]
