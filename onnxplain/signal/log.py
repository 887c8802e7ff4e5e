"""What shows how a training goes: TensorBoard's curves, and pictures above reconstructions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.render import mosaic
from onnxplain.signal.autoencoder import Autoencoder
from onnxplain.signal.pictures import Pictures
from onnxplain.signal.show import as_image

TENSORBOARD, SAMPLES = "tensorboard", "samples"
_SHOWN = 8
_EVERY = 10  # steps between points of a curve


class Log:
    """A training's log.

    Args:
        folder: the training's.
        writes: whether this process writes it; in the others nothing happens.
    """

    def __init__(self, folder: Path, writes: bool) -> None:
        self._folder, self._writes = folder, writes
        self._writer: Any = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def begin(self, stage: str, done: int) -> None:
        """Log a stage from here on. TensorBoard drops the points that lie after `done` steps.

        Each stage has a folder of its own, because TensorBoard drops points of the whole folder.
        """
        if self._writes:
            from torch.utils.tensorboard import SummaryWriter

            self._close()
            path = self._folder / TENSORBOARD / stage
            # TensorBoard reads a folder's files by name, and those of one second in any order.
            while [*path.glob(f"events.out.tfevents.{int(time.time()):010d}.*")]:
                time.sleep(0.05)
            self._writer = SummaryWriter(str(path), purge_step=done + 1)

    def loss(self, stage: str, step: int, loss: float) -> None:
        """Add a point to the stage's curve, every ten steps."""
        if self._writer is not None and step % _EVERY == 0:
            self._writer.add_scalar(f"{stage}/loss", loss, step)

    def samples(
        self,
        stage: str,
        step: int,
        autoencoder: Autoencoder,
        pictures: Pictures,
        device: torch.device,
    ) -> None:
        """Write the first pictures above their reconstructions; leaves evaluation mode on."""
        if self._writer is None:
            return
        pixels = next(pictures.batches(_SHOWN)).pixels
        if not len(pixels):
            return
        with torch.no_grad():
            found = autoencoder.eval()(torch.from_numpy(pixels).to(device)).cpu().numpy()
        picture = mosaic([[as_image(each) for each in row] for row in (pixels, found)])
        folder = self._folder / SAMPLES
        folder.mkdir(exist_ok=True)
        write_image(picture, folder / f"{stage}-{step:07d}.png")
        self._writer.add_image(f"{stage}/samples", np.asarray(picture), step, dataformats="HWC")
