"""Data by name, and the order in which steps take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from onnxplain.errors import InputError
from onnxplain.signal.data import open_data
from onnxplain.signal.sampling import BatchSampler

from .small import class_folders


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = open_data(str(class_folders(tmp_path / "data", classes=3)), 16)
    assert data.classes == ("class0", "class1", "class2")
    assert sorted({*data.train.source.labels, *data.test.source.labels}) == [0, 1, 2]
    assert len(data.train) + len(data.test) == 12
    sample = data.train[0, 0]
    assert sample.pixels.shape == (3, 16, 16)
    assert 0 <= sample.pixels.min() <= sample.pixels.max() <= 1


def test_train_and_test_folders_stay_apart(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / part)
    data = open_data(str(tmp_path), 16)
    assert len(data.train) == len(data.test) == 8
    (tmp_path / "test" / "class1").rename(tmp_path / "test" / "other")
    with pytest.raises(InputError, match="different classes: class1, other"):
        open_data(str(tmp_path), 16)


def test_random_squares_depend_on_seed_epoch_and_picture_alone(tmp_path: Path) -> None:
    folder = str(class_folders(tmp_path / "data"))
    one, again, other = (open_data(folder, 16, seed).train for seed in (0, 0, 1))
    one[1, 2]
    assert np.array_equal(one.pixels(0, 0), again.pixels(0, 0))
    assert not np.array_equal(one.pixels(0, 0), one.pixels(0, 1))
    assert not np.array_equal(one.pixels(0, 0), other.pixels(0, 0))


def test_digits_are_grey_and_divided() -> None:
    data = open_data("digits", 32)
    assert (len(data.train), len(data.test), data.channels) == (1198, 599, 1)
    assert data.classes == tuple("0123456789")


def test_a_dataset_of_torchvisions_is_read_from_its_folder(tmp_path: Path) -> None:
    """MNIST's files, made here: its own format, four images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        images = np.array([0x803, 4, 28, 28], ">i4").tobytes() + pixels.tobytes()
        labels = np.array([0x801, 4], ">i4").tobytes() + bytes([7, 0, 1, 9])
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    data = open_data(f"MNIST:{tmp_path}", 28)
    assert len(data.classes) == 10
    assert list(data.train.source.labels) == [7, 0, 1, 9]
    assert np.allclose(data.train.pixels(2)[0], pixels[2] / 255)


class Lazy:
    """A dataset that decodes when it is asked, has splits, and downloads nothing."""

    classes = ("cat", "dog")

    def __init__(self, root: str, split: str) -> None:
        if split not in ("trainval", "val"):
            raise ValueError(f"no split {split}")
        self.files = sorted((Path(root) / split).iterdir())
        self.targets = [0, 1]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return Image.open(self.files[index]).convert("L"), self.targets[index]


def test_a_dataset_that_decodes_later_may_have_a_corrupt_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "Lazy", Lazy, raising=False)
    for split in ("trainval", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.png").write_bytes(b"no picture")
        Image.new("L", (8, 8), 51).save(tmp_path / split / "1.png")
    data = open_data(f"Lazy:{tmp_path}", 8)
    assert (data.channels, data.classes) == (1, ("cat", "dog"))
    pixels, label, unreadable = data.train[0, 0]
    assert np.allclose(pixels, 0.2)
    assert (label, unreadable) == (1, [0])
    (batch,) = data.test.batches(4)
    assert (len(batch.pixels), batch.labels.tolist(), batch.unreadable) == (1, [1], [0])
    assert data.test.source.name(0) == "picture 0 of the test part"
    (tmp_path / "trainval" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of the 2 pictures of the train part"):
        open_data(f"Lazy:{tmp_path}", 8)


@pytest.mark.parametrize("name", ["no-such-folder", "NoSuchDataset:there"])
def test_unknown_data_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        open_data(name, 16)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_an_epoch_takes_every_picture_and_any_step_can_be_the_first(
    length: int, batch: int, world: int, seed: int
) -> None:
    each = BatchSampler.steps(length, batch, world)
    ranks = [list(BatchSampler(length, batch, seed, r, world, 0, 2 * each)) for r in range(world)]
    for epoch in range(2):
        steps = [step for rank in ranks for step in rank[epoch * each : (epoch + 1) * each]]
        assert {index for step in steps for _, index in step} == set(range(length))
        assert {len(step) for step in steps} == {batch}
        assert {e for step in steps for e, _ in step} == {epoch}
    later = list(BatchSampler(length, batch, seed, 0, world, each - 1, 2 * each))
    assert later == ranks[0][each - 1 :]
