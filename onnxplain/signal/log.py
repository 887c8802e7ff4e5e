"""What can be watched of a training: TensorBoard's curves, and pictures above reconstructions."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from onnxplain.runtime.figures import write_image
from onnxplain.runtime.render import mosaic
from onnxplain.signal.autoencoder import Autoencoder
from onnxplain.signal.checkpoint import Checkpoint
from onnxplain.signal.data import Pictures
from onnxplain.signal.show import as_image

TENSORBOARD, SAMPLES = "tensorboard", "samples"
_SHOWN = 8
_EVERY = 10  # steps between points of a curve


class Log:
    """A training's log; that of a process which does not write stays empty.

    Args:
        folder: the training's.
        kept: the checkpoint that it goes on from, after which TensorBoard is to forget.
    """

    def __init__(self, folder: Path, kept: Checkpoint | None, writes: bool) -> None:
        self._folder = folder
        self._writer: Any = None
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            purge = kept.step + 1 if kept is not None else None
            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=purge)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def loss(self, stage: str, step: int, loss: float) -> None:
        """A point of the stage's curve, every ten steps."""
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
        pixels = next(pictures.batches(_SHOWN), None)
        if pixels is None:
            return
        with torch.no_grad():
            found = autoencoder.eval()(torch.from_numpy(pixels[0]).to(device)).cpu().numpy()
        picture = mosaic([[as_image(each) for each in row] for row in (pixels[0], found)])
        folder = self._folder / SAMPLES
        folder.mkdir(exist_ok=True)
        write_image(picture, folder / f"{stage}-{step:07d}.png")
        self._writer.add_image(f"{stage}/samples", np.asarray(picture), step, dataformats="HWC")
