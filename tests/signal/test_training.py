"""Whole trainings: resumed, watched, and with data that is not as it should be."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image

from onnxplain.errors import InputError, OnnxplainError
from onnxplain.signal import checkpoint, training
from onnxplain.signal import weights as files
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.log import Log
from onnxplain.signal.settings import Settings, changed
from onnxplain.signal.training import train
from onnxplain.signal.weights import load_autoencoder

from .small import Linear, class_folders

TINY = {"size": 16, "autoencoder": "segnet-tiny", "batch": 2, "epochs": 3, "tune_epochs": 2}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


def settings(data: Path, **changes: object) -> Settings:
    return Settings(**({"data": str(data), "classifier": "linear"} | TINY | changes))  # type: ignore[arg-type]


def classifier(classes: int = 2) -> Linear:
    torch.manual_seed(3)
    return Linear(3, 16, classes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_autoencoder(folder / "autoencoder.pt").state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


class _KilledError(Exception):
    """What stands for a process that ends without warning."""


@pytest.mark.parametrize(("stage", "step"), [("reconstruction", 3), ("tuning", 2)])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, stage: str, step: int
) -> None:
    wanted = settings(data)
    train(wanted, tmp_path / "whole", classifier=classifier())

    def interrupt(at: str, done: int, total: int, loss: float) -> None:
        if (at, done) == (stage, step):
            signal.raise_signal(signal.SIGINT)  # to this thread, at once

    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "parts", classifier=classifier(), progress=interrupt)
    assert not (tmp_path / "parts" / "tuning.pt").exists()
    train(wanted, tmp_path / "parts", resume=True, classifier=classifier())
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_killed_training_goes_on_from_its_last_checkpoint(data: Path, tmp_path: Path) -> None:
    wanted = settings(data)
    train(wanted, tmp_path / "whole", classifier=classifier())

    def kill(at: str, done: int, total: int, loss: float) -> None:
        if (at, done) == ("tuning", 2):
            raise _KilledError

    with pytest.raises(_KilledError):
        train(
            wanted, tmp_path / "parts", classifier=classifier(), progress=kill, checkpoint_steps=2
        )
    train(wanted, tmp_path / "parts", resume=True, classifier=classifier())
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_training_resumed_when_it_is_done_changes_nothing(data: Path, tmp_path: Path) -> None:
    wanted = settings(data)
    train(wanted, tmp_path / "run", classifier=classifier())
    before = weights(tmp_path / "run")
    train(wanted, tmp_path / "run", resume=True, classifier=classifier())
    assert_same(before, weights(tmp_path / "run"))


def test_a_training_leaves_what_can_be_watched(data: Path, tmp_path: Path) -> None:
    folder, steps = tmp_path / "run", []
    wanted = settings(data, epochs=12)
    train(wanted, folder, classifier=classifier(), progress=lambda *step: steps.append(step))
    assert Settings.read(folder) == wanted
    assert json.loads((folder / "config.json").read_text())["seed"] == 0
    pictures = sorted(file.name for file in (folder / "samples").iterdir())
    assert len(pictures) == wanted.epochs + wanted.tune_epochs
    with Image.open(folder / "samples" / pictures[-1]) as picture:
        assert picture.size[1] == 2 * wanted.size
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "reconstruction")).Reload()
    assert "reconstruction/loss" in events.Tags()["scalars"]
    first, last = ([s for s in steps if s[0] == "reconstruction"][i] for i in (0, -1))
    assert last[1] == last[2]
    assert last[3] < first[3]


def test_a_folder_is_not_trained_into_twice(data: Path, tmp_path: Path) -> None:
    wanted = settings(data, epochs=1, classifier=None)
    train(wanted, tmp_path / "run")
    with pytest.raises(InputError, match="resume=True"):
        train(wanted, tmp_path / "run")
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        train(dataclasses.replace(wanted, seed=1), tmp_path / "run", resume=True)


def test_a_training_goes_on_with_the_same_data_and_as_many_processes_alone(
    data: Path, tmp_path: Path
) -> None:
    wanted = settings(data, classifier=None)
    train(wanted, tmp_path / "run")
    file = tmp_path / "run" / checkpoint.CHECKPOINT
    content = files.read(file)
    files.save(content | {"world": 2}, file)
    with pytest.raises(InputError, match="begun by 2 processes, and this is one of 1"):
        train(wanted, tmp_path / "run", resume=True)
    files.save(content, file)
    shutil.copy(data / "class1" / "1.png", data / "class1" / "another.png")
    with pytest.raises(InputError, match="begun on 5 pictures, and the data has 6"):
        train(wanted, tmp_path / "run", resume=True)


def test_settings_that_change_nothing_of_what_goes_on_may_differ() -> None:
    begun = {"seed": 0, "start": "there/a.pt", "workers": 0}
    assert not changed(begun, {"seed": 0, "start": "here/a.pt", "workers": 4})
    assert changed(begun, begun | {"start": None, "seed": 1}) == ["seed", "start"]
    assert changed(begun, begun | {"start": "there/b.pt"}) == ["start"]


def test_a_training_killed_twice_has_one_point_for_each_step(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = settings(data, epochs=7, tune_epochs=4)  # 21 steps, 12 steps
    for last in (("reconstruction", 11), ("tuning", 10), None):

        def kill(at: str, done: int, total: int, loss: float) -> None:
            if (at, done) == last:  # noqa: B023
                raise _KilledError

        with pytest.raises(_KilledError) if last else nullcontext():
            train(
                wanted,
                tmp_path / "run",
                resume=(tmp_path / "run").exists(),
                classifier=classifier(),
                progress=kill,
            )
    steps = {}
    for stage in ("reconstruction", "tuning"):
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / stage)).Reload()
        steps[stage] = [event.step for event in events.Scalars(f"{stage}/loss")]
    assert steps == {"reconstruction": [10, 20], "tuning": [10]}


def test_a_curve_taken_up_within_a_second_keeps_its_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # A process's ninth file, and its tenth, whose name comes first.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    for done in (0, 10):
        with Log(tmp_path, writes=True) as log:
            log.begin("tuning", done)
            log.loss("tuning", done + 10, 1.0)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "tuning")).Reload()
    assert [event.step for event in events.Scalars("tuning/loss")] == [10, 20]


def test_a_corrupt_picture_is_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    corrupt = data / "class1" / "1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:100])
    done = train(settings(data, epochs=1), tmp_path / "run", classifier=classifier())
    assert done.skipped == [str(corrupt)]


def test_an_empty_class_folder_is_refused(data: Path, tmp_path: Path) -> None:
    (data / "empty").mkdir()
    with pytest.raises(InputError, match=r"'.*empty' has no picture"):
        train(settings(data), tmp_path / "run", classifier=classifier())


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", classes=1)
    with pytest.raises(InputError, match="one class, 'class0'"):
        train(settings(data), tmp_path / "run", classifier=classifier())


def test_pictures_without_classes_are_enough_for_reconstruction(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", classes=1) / "class0"
    done = train(settings(data, classifier=None, epochs=1), tmp_path / "run")
    assert done.data.classes == ()


def test_a_classifier_of_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"puts out \[5\], and the data has 2 classes"):
        train(settings(data), tmp_path / "run", classifier=classifier(classes=5))


def test_a_classifier_that_asserts_other_pictures_is_refused(data: Path, tmp_path: Path) -> None:
    class Larger(Linear):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.shape[2] == 224, "wrong height"
            return super().forward(pixels)

    with pytest.raises(InputError, match="does not take pictures of 3 × 16 × 16: wrong height"):
        train(settings(data), tmp_path / "run", classifier=Larger(3, 16, 2))


def test_a_training_that_was_refused_can_be_begun_again(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train(settings(data), tmp_path / "run", classifier=classifier(classes=5))
    train(settings(data, epochs=1), tmp_path / "run", classifier=classifier())


@pytest.mark.parametrize("workers", [0, 1])
def test_data_none_of_which_can_be_read_is_refused(
    data: Path, tmp_path: Path, workers: int
) -> None:
    for file in data.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^none of the \d+ pictures can be read$"):
        train(settings(data, workers=workers), tmp_path / "run", classifier=classifier())


def test_workers_decode_what_one_process_does(data: Path, tmp_path: Path) -> None:
    corrupt = data / "class1" / "1.png"
    corrupt.write_bytes(corrupt.read_bytes()[:100])
    for workers in (0, 2):
        wanted = settings(data, epochs=1, classifier=None, workers=workers)
        done = train(wanted, tmp_path / str(workers))
        assert done.skipped == [str(corrupt)]
    assert_same(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_a_loss_that_is_not_finite_ends_the_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OnnxplainError, match="smaller rate"):
        train(settings(data, rate=1e30, classifier=None), tmp_path / "run")


def test_mixed_precision_trains_float32_weights(data: Path, tmp_path: Path) -> None:
    wanted = settings(data, precision="bfloat16", epochs=1)
    done = train(wanted, tmp_path / "run", classifier=classifier())
    assert {p.dtype for p in done.autoencoder.parameters()} == {torch.float32}
    exact = train(settings(data, epochs=1), tmp_path / "exact", classifier=classifier())
    mixed, single = (
        torch.cat([p.flatten() for p in network.parameters()])
        for network in (done.autoencoder, exact.autoencoder)
    )
    assert not torch.equal(mixed, single)
    torch.manual_seed(0)
    begun = Autoencoder(Design.of("segnet-tiny", 16, 3))
    before = torch.cat([p.flatten() for p in begun.parameters()])
    # Adam moves weights of a tiny gradient, which rounding turns, as far as the others; of
    # directions that have nothing in common the cosine would be within 0.03 of 0.
    assert torch.cosine_similarity(mixed - before, single - before, dim=0) > 0.4


def test_the_stages_are_those_that_have_epochs(data: Path) -> None:
    names = [stage.name for stage in training.stages(settings(data, epochs=0))]
    assert names == ["tuning"]
    with pytest.raises(InputError, match="nothing to train"):
        settings(data, epochs=0, classifier=None).check()
