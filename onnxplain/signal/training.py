"""Training an autoencoder in two stages: on reconstruction, then on a classifier's gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from onnxplain.errors import InputError, OnnxplainError
from onnxplain.signal import checkpoint, classifiers
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.data import Data, open_data, require_classes
from onnxplain.signal.export import require_exportable
from onnxplain.signal.log import Log
from onnxplain.signal.pictures import Sample
from onnxplain.signal.processes import Process, Stop, interruptible, joined
from onnxplain.signal.sampling import BatchSampler, loader
from onnxplain.signal.settings import CONFIG, Settings, changed
from onnxplain.signal.weights import save_autoencoder, start_from

AUTOENCODER = "autoencoder.pt"
RECONSTRUCTION, TUNING = "reconstruction", "tuning"
CHECKPOINT_STEPS = 500
"""How often a checkpoint is written, in steps, besides at the end of each epoch."""

Progress = Callable[[str, int, int, float], None]
"""Called with the stage, the steps done, how many there are, and the loss."""


@dataclass(frozen=True)
class Stage:
    """One of the two stages: its name, its epochs, and Adam's step size at its start."""

    name: str
    epochs: int
    rate: float


def stages(settings: Settings) -> list[Stage]:
    planned = [Stage(RECONSTRUCTION, settings.epochs, settings.rate)]
    if settings.classifier:
        planned.append(Stage(TUNING, settings.tune_epochs, settings.tune_rate))
    return [stage for stage in planned if stage.epochs]


def freeze_for(stage: Stage, autoencoder: Autoencoder) -> list[nn.Parameter]:
    """Set the autoencoder's mode for a stage, and return the weights that learn.

    Tuning must show only what the classifier's gradient lets in. So besides freezing the encoder
    and the classifier, all BatchNorm layers keep their statistics, those of the decoder too: a
    gradient of zero leaves the autoencoder unchanged.
    """
    if stage.name == RECONSTRUCTION:
        autoencoder.train().requires_grad_(True)
    else:
        autoencoder.eval().requires_grad_(False)
        autoencoder.decoder.requires_grad_(True)
    return [p for p in autoencoder.parameters() if p.requires_grad]


def stage_loss(
    stage: Stage, model: nn.Module, classifier: nn.Module | None, pixels: Tensor, labels: Tensor
) -> Tensor:
    """Mean squared error of pixels in [0, 1] for reconstruction; cross-entropy for tuning."""
    reconstruction = model(pixels)
    if stage.name == RECONSTRUCTION:
        return functional.mse_loss(reconstruction.float(), pixels)
    assert classifier is not None
    return functional.cross_entropy(classifier(reconstruction).float(), labels)


@dataclass
class _Run:
    """What all steps of a training share."""

    settings: Settings
    folder: Path
    data: Data
    autoencoder: Autoencoder
    classifier: nn.Module | None
    process: Process
    log: Log
    stop: Stop
    progress: Progress | None
    skipped: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        autoencoder: in evaluation mode, on the CPU.
        skipped: the names of pictures that could not be read.
        first: whether this is the process that writes files.
    """

    autoencoder: Autoencoder
    data: Data
    skipped: list[str]
    first: bool = True


def train(
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    classifier: nn.Module | None = None,
    progress: Progress | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> Outcome:
    """Train an autoencoder on reconstruction, then tune its decoder if there is a classifier.

    Started by `torchrun`, each process trains on its part of every step, and the gradients are
    averaged; the first process writes, with its own BatchNorm statistics. Into the folder go
    `config.json` (the settings), `autoencoder.pt` (the weights), `reconstruction.pt` and
    `tuning.pt` (those after each stage), `checkpoint.pt`, `samples/` (pictures above their
    reconstructions) and `tensorboard/`.

    Args:
        settings: what to train, and on what.
        folder: created if missing.
        resume: whether to continue from the folder's checkpoint; on a CPU, to exactly the same
            weights.
        classifier: a module to use instead of `settings.classifier`, which then only names it.
        progress: called after each step, in the first process.
        checkpoint_steps: how often to write a checkpoint, besides at the end of each epoch.

    Raises:
        InputError: settings, data or a classifier that do not fit together; a folder that holds
            another training; a half precision that the device lacks.
        SourceError: no such classifier or weights, or a classifier that cannot be exported.
        OnnxplainError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.
    """
    settings.check()
    with joined() as process, interruptible() as stop:
        if not resume:
            _refuse_used(folder)
        kept = _kept(settings, folder) if resume else None
        with process.first_alone():  # it may have to download
            data = open_data(settings.data, settings.size, settings.seed)
            network = _classifier(settings, data, classifier, process)
        if kept is not None:
            kept.require_same(len(data.train), process.world)
        if settings.precision == "float16" and process.device.type == "cpu":
            raise InputError("float16 only trains on a GPU; on a CPU use bfloat16")
        autoencoder = _first(settings, data).to(process.device)
        process.wait()  # until all have looked into the folder
        if process.is_first and not resume:
            _begin(settings, folder)
        with Log(folder, process.is_first) as log:
            run = _Run(settings, folder, data, autoencoder, network, process, log, stop, progress)
            if kept is not None:
                run.skipped = set(kept.skipped)
            for stage in _left(settings, kept):
                here = kept if kept is not None and kept.stage == stage.name else None
                _train_stage(run, stage, here, checkpoint_steps)
        names = [data.train.source.name(i) for i in sorted(process.gathered(run.skipped))]
    return Outcome(autoencoder.eval().requires_grad_(False).cpu(), data, names, process.is_first)


def _kept(settings: Settings, folder: Path) -> checkpoint.Checkpoint | None:
    """The checkpoint of a folder that is to be resumed."""
    before = Settings.read(folder)
    if names := changed(dataclasses.asdict(before), dataclasses.asdict(settings)):
        raise InputError(
            f"'{folder}' was begun with other settings ({', '.join(names)}); resume with "
            f"those in its {CONFIG}, or train into another folder"
        )
    return checkpoint.read(folder)


def _refuse_used(folder: Path) -> None:
    if (folder / CONFIG).exists():
        raise InputError(
            f"'{folder}' holds a training: continue it with resume=True, or choose another folder"
        )


def _begin(settings: Settings, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder '{folder}': {error.strerror}") from error
    settings.write(folder)


def _left(settings: Settings, kept: checkpoint.Checkpoint | None) -> list[Stage]:
    """The stages that remain, from the checkpoint's on."""
    planned = stages(settings)
    names = [stage.name for stage in planned]
    return planned[names.index(kept.stage) :] if kept is not None else planned


def _first(settings: Settings, data: Data) -> Autoencoder:
    """The autoencoder before training."""
    if settings.start:
        start = Path(settings.start)
        return start_from(start, settings.size, data.channels, settings.channels)
    design = Design.of(settings.autoencoder, settings.size, data.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Autoencoder(design)


def _classifier(
    settings: Settings, data: Data, given: nn.Module | None, process: Process
) -> nn.Module | None:
    if settings.classifier is None:
        return None
    require_classes(data, settings.data)
    if given is not None:
        module = classifiers.frozen(classifiers.check(given, settings.classifier, data))
        return module.to(process.device)
    module = classifiers.open_classifier(settings.classifier, data, settings.weights)
    if process.is_first:
        require_exportable(module, data.channels, data.size)
    return module.to(process.device)


def _train_stage(
    run: _Run, stage: Stage, kept: checkpoint.Checkpoint | None, checkpoint_steps: int
) -> None:
    settings, process = run.settings, run.process
    learning = freeze_for(stage, run.autoencoder)
    optimizer = torch.optim.Adam(learning, stage.rate)
    scaler = torch.amp.GradScaler(process.device.type, enabled=settings.precision == "float16")
    each = BatchSampler.steps(len(run.data.train), settings.batch, process.world)
    total, first = each * stage.epochs, 0
    if kept is not None:
        first = kept.step
        kept.restore(run.autoencoder, optimizer, scaler)
    run.log.begin(stage.name, first)
    model: nn.Module = run.autoencoder
    if process.world > 1:
        devices = [process.device] if process.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices)
    sampler = BatchSampler(
        len(run.data.train), settings.batch, settings.seed, process.rank, process.world,
        first, total,
    )  # fmt: skip
    step = first
    for batch in loader(run.data.train, sampler, settings.workers):
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * 0.5 * (1 + math.cos(math.pi * step / total))
        loss = _step(run, stage, model, optimizer, scaler, batch)
        step += 1
        run.skipped.update(batch.unreadable)
        run.log.loss(stage.name, step, loss)
        if run.progress and process.is_first:
            run.progress(stage.name, step, total, loss)
        stopping = process.agree(run.stop.asked)
        if step % each == 0:
            run.log.samples(stage.name, step, run.autoencoder, run.data.test, process.device)
            freeze_for(stage, run.autoencoder)
        if stopping or step % each == 0 or step % checkpoint_steps == 0:
            run.skipped = process.gathered(run.skipped)
            if process.is_first:
                about = (run.skipped, len(run.data.train), process.world)
                parts = (run.autoencoder, optimizer, scaler)
                checkpoint.write(run.folder, stage.name, step, *about, *parts)
        if stopping:
            raise KeyboardInterrupt
    if process.is_first:
        save_autoencoder(run.autoencoder, run.folder / f"{stage.name}.pt")
        save_autoencoder(run.autoencoder, run.folder / AUTOENCODER)
    process.wait()


def _step(
    run: _Run, stage: Stage, model: nn.Module, optimizer: Any, scaler: Any, batch: Sample
) -> float:
    """One step of the optimizer; the loss before it."""
    process, precision = run.process, run.settings.precision
    pixels, labels = batch.pixels.to(process.device), batch.labels.to(process.device)
    mixed = torch.autocast(
        process.device.type, getattr(torch, precision), enabled=precision != "float32"
    )
    optimizer.zero_grad()
    with mixed:
        loss = stage_loss(stage, model, run.classifier, pixels, labels)
    value = process.mean(loss.detach())
    if not math.isfinite(value):
        raise OnnxplainError(
            f"the loss of {stage.name} is {value}: start again with a smaller rate "
            f"({stage.rate:g} now), or in float32"
        )
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return value
