"""What a training needs to go on exactly where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onnxplain.errors import SourceError
from onnxplain.signal import weights

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        stage: the name of the one that was running.
        step: how many of its steps were done.
        skipped: the pictures that could not be read so far.
        state: of the autoencoder, the optimizer, the gradients' scaler and the random generator.
    """

    stage: str
    step: int
    skipped: tuple[int, ...]
    state: dict[str, Any]

    def restore(self, autoencoder: nn.Module, optimizer: Any, scaler: Any) -> None:
        """Set them as they were."""
        autoencoder.load_state_dict(self.state["autoencoder"])
        optimizer.load_state_dict(self.state["optimizer"])
        scaler.load_state_dict(self.state["scaler"])
        torch.set_rng_state(self.state["random"])


def write(
    folder: Path,
    stage: str,
    step: int,
    skipped: set[int],
    autoencoder: nn.Module,
    optimizer: Any,
    scaler: Any,
) -> None:
    """Replace the folder's checkpoint, as a whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    state = {
        "autoencoder": autoencoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "random": torch.get_rng_state(),
    }
    content = {"stage": stage, "step": step, "skipped": sorted(skipped), "state": state}
    weights.save(content, folder / CHECKPOINT)


def read(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint; None where the training stopped before the first.

    Raises:
        SourceError: it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = weights.read(path)
    try:
        skipped = tuple(content["skipped"])
        return Checkpoint(content["stage"], content["step"], skipped, content["state"])
    except KeyError as error:
        raise SourceError(f"{path} is not a training's checkpoint: it lacks {error}") from error
