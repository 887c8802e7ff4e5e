"""What a training needs to resume exactly where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from onnxplain.errors import InputError, SourceError
from onnxplain.signal import weights

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        stage: the name of the stage that was running.
        step: how many of its steps were done.
        skipped: the pictures that could not be read so far.
        pictures: how many there were to train on.
        world: how many processes trained.
        state: that of the autoencoder, the optimizer and the gradient scaler.
    """

    stage: str
    step: int
    skipped: tuple[int, ...]
    pictures: int
    world: int
    state: dict[str, Any]

    def require_same(self, pictures: int, world: int) -> None:
        """Raise InputError if an epoch now has another number of steps, or other pictures."""
        if self.pictures != pictures:
            raise InputError(
                f"the training was begun on {self.pictures} pictures, and the data has {pictures} "
                "now: resume with those, or train into another folder"
            )
        if self.world != world:
            raise InputError(
                f"the training was begun by {self.world} processes, and this is one of {world}: "
                "resume with as many, or train into another folder"
            )

    def restore(self, autoencoder: nn.Module, optimizer: Any, scaler: Any) -> None:
        """Put all three into the saved state."""
        autoencoder.load_state_dict(self.state["autoencoder"])
        optimizer.load_state_dict(self.state["optimizer"])
        scaler.load_state_dict(self.state["scaler"])


def write(
    folder: Path,
    stage: str,
    step: int,
    skipped: set[int],
    pictures: int,
    world: int,
    autoencoder: nn.Module,
    optimizer: Any,
    scaler: Any,
) -> None:
    """Replace the folder's checkpoint, completely or not at all.

    Raises:
        InputError: it cannot be written.
    """
    state = {
        "autoencoder": autoencoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    content = {
        "stage": stage,
        "step": step,
        "skipped": sorted(skipped),
        "pictures": pictures,
        "world": world,
        "state": state,
    }
    weights.save(content, folder / CHECKPOINT)


def read(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint; None if the training stopped before the first.

    Raises:
        SourceError: it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content = weights.read(path)
    try:
        return Checkpoint(**{**content, "skipped": tuple(content["skipped"])})
    except (KeyError, TypeError) as error:
        raise SourceError(f"{path} is not a training's checkpoint: {error}") from error
