"""`onnxplain.visualize`: from a network and photographs to pictures, and their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import InputError, SourceError
from onnxplain.vital import pictures
from onnxplain.vital.settings import Settings, with_recipe
from onnxplain.vital.task import Progress
from onnxplain.vital.visualisation import Visualisation

SIZE, CLASSES = 48, 7
SHORT = Settings(steps=24, references=6, roll=5)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Five resolutions, and random weights that keep the activations' scale."""
    torch.manual_seed(0)
    stages: list[nn.Module] = []
    channels = 3
    for width in (8, 12, 16, 24):
        stages += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    module = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return module.eval()


@pytest.fixture(scope="module")
def file(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file, which is read more quickly than a module is traced."""
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    batch = {0: torch.export.Dim("batch")}
    example = torch.zeros(2, 3, SIZE, SIZE)
    torch.onnx.export(network, (example,), path, dynamic_shapes=(batch,), verbose=False)
    return path


@pytest.fixture
def see(network: nn.Module, file: Path, photo_folder: Path):
    def see(**options: object) -> Visualisation:
        given = {"references": photo_folder, "settings": SHORT, "size": SIZE, "provider": "cpu"}
        given |= {} if options.keys() & {"channel", "target"} else {"target": 2}
        source = network if "start_size" in options else file
        return onnxplain.visualize(source, **(given | options))

    return see


class Stop(BaseException):
    """A user's Ctrl-C."""


def stop_at(step: int):
    def progress(now: Progress) -> None:
        if now.stage == "optimising" and now.done >= step:
            raise Stop

    return progress


def test_a_picture_comes_nearer_to_the_references_distributions(see) -> None:
    seen = see(target=[2, 5], references=None, settings=replace(SHORT, objective="activation"))
    assert seen.pictures.shape == (2, SIZE, SIZE, 3)
    assert (seen.losses[-1] < seen.losses[0]).all()
    aligned = see(settings=replace(SHORT, steps=60))
    assert aligned.losses[-5:].mean() < 0.5 * aligned.losses[0].mean()
    assert aligned.losses.shape == (60, 1)
    assert 0 <= aligned.alpha.min() < aligned.alpha.max() <= 1


def test_interrupted_and_resumed_it_ends_in_the_same_picture(see, tmp_path: Path) -> None:
    whole = see()
    state = tmp_path / "unfinished.npz"
    with pytest.raises(Stop):
        see(state=state, progress=stop_at(9))
    assert state.exists()
    resumed = see(state=state)
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)
    np.testing.assert_array_equal(resumed.alpha, whole.alpha)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    np.testing.assert_array_equal(resumed.frames, whole.frames)
    again = see(state=state, progress=stop_at(1))  # all is done: it takes no step
    np.testing.assert_array_equal(again.pictures, whole.pictures)


@pytest.mark.parametrize("objective", ["vital", "fourier"])
def test_a_spectrum_or_a_smaller_start_is_resumed_too(see, tmp_path: Path, objective: str) -> None:
    options = {"settings": replace(SHORT, objective=objective)}
    if objective == "vital":
        options |= {"start_size": 32, "start_steps": 8}
    whole = see(**options)
    with pytest.raises(Stop):
        see(**options, state=tmp_path / "state.npz", progress=stop_at(20))
    resumed = see(**options, state=tmp_path / "state.npz")
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)


def test_the_same_seed_gives_the_same_picture_and_another_another(see) -> None:
    first, again = see(), see()
    np.testing.assert_array_equal(first.pictures, again.pictures)
    other = see(settings=replace(SHORT, seed=1))
    assert (first.pictures != other.pictures).mean() > 0.5


def test_the_state_of_another_optimisation_is_refused_and_kept(see, tmp_path: Path) -> None:
    state = tmp_path / "unfinished.npz"
    with pytest.raises(Stop):
        see(state=state, progress=stop_at(9))
    kept = state.read_bytes()
    with pytest.raises(InputError, match="other settings"):
        see(settings=replace(SHORT, seed=1), state=state)
    state.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(InputError, match="delete it to start again"):
        see(state=state)
    assert state.exists()


def test_a_channel_is_seen_through_the_layers_before_it(see) -> None:
    seen = see(layer="7", channel=[3, 0], settings=replace(SHORT, relevance="restricted"))
    assert seen.names == ("7 channel 3", "7 channel 0")
    assert np.isnan(seen.probabilities).all()
    assert len(seen.layers) == 3  # and none behind it
    assert (seen.pictures[0] != seen.pictures[1]).any()


def test_pictures_in_a_batch_are_as_each_alone(see) -> None:
    both, alone = (
        see(target=[1, 4], references=None, settings=_plain()),
        see(target=4, references=None, settings=_plain()),
    )
    difference = both.pictures[1].astype(int) - alone.pictures[0]
    assert np.abs(difference).mean() < 2


def _plain() -> Settings:
    return replace(SHORT, objective="activation", steps=4)


def test_each_class_has_the_folder_of_its_name(see, tmp_path: Path, photo_folder: Path) -> None:
    folder = tmp_path / "classes"
    for number, file in enumerate(sorted(photo_folder.iterdir())[:2]):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / file.name).write_bytes(file.read_bytes())
    seen = see(target=[0, 1], references=folder)
    assert (seen.losses[0] > 0).all()
    with pytest.raises(InputError, match="none named '3'"):
        see(target=[0, 3], references=folder)


def test_all_of_it_is_written(see, tmp_path: Path) -> None:
    seen = see(target=[1, 4, 5, 2, 0], references=None, settings=_plain())
    written = pictures.write(seen, tmp_path)
    assert [Image.open(path).size for path in written] == [(SIZE, SIZE)] * 5
    assert np.asarray(Image.open(tmp_path / "4-class-4.transparent.png")).shape == (SIZE, SIZE, 4)
    assert Image.open(tmp_path / pictures.ANIMATION).n_frames == len(seen.frames) == 4
    found = json.loads((tmp_path / pictures.FIGURES).read_text())
    assert [neuron["index"] for neuron in found["neurons"]] == [1, 4, 5, 2, 0]
    losses = [neuron["loss"] for neuron in found["neurons"]]
    np.testing.assert_allclose(np.transpose(losses), seen.losses, atol=1e-5)
    assert Image.open(tmp_path / pictures.SHEET).width > 4 * SIZE


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": CLASSES}, InputError, "7 classes"),
        ({"target": "tabby"}, InputError, "no class names"),
        ({"target": 1, "channel": 1}, InputError, "give a target, or a layer"),
        ({"channel": 1}, InputError, "give a target, or a layer"),
        ({"layer": "7", "channel": 99}, InputError, "16 channels"),
        ({"layer": "convolution", "channel": 0}, SourceError, "no layer 'convolution'"),
        ({"layers": ["0", "99"]}, SourceError, "no layer '99'.*closest|did you mean|9"),
        ({"references": None}, InputError, "give a folder of photographs"),
        ({"references": Path("nowhere")}, InputError, "no such folder"),
        ({"settings": Settings(objective="beauty")}, InputError, "vital, activation, fourier"),
        ({"settings": Settings(steps=0)}, InputError, "at least 1"),
        ({"settings": Settings(weights=(1.0, 2.0))}, InputError, "2 weights for 5 matched"),
        ({"settings": Settings(relevance="tea")}, SourceError, "lrp, restricted, guided"),
        ({"settings": Settings(priors=(0.0, float("nan"), 0.0))}, InputError, "finite"),
    ],
)
def test_what_cannot_be_is_said(see, options, error, words: str) -> None:
    with pytest.raises(error, match=words):
        see(**options)


def test_an_unreadable_reference_is_named(see, photo_folder: Path) -> None:
    (photo_folder / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        see()
    for file in photo_folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no image found"):
        see()


def test_rates_warm_up_and_fall_as_a_cosine() -> None:
    rates = Settings().rates()
    np.testing.assert_allclose(rates[[0, 49, 99]], [0.01, 0.5, 1], rtol=1e-6)
    np.testing.assert_allclose(rates[[100, 1050]], [1, 0.5], rtol=1e-6)
    assert 0 < rates[-1] < 1e-5
    assert Settings(steps=40).rates()[1] == 1


def test_recipes_are_the_paper_s() -> None:
    assert with_recipe(Settings(), "densenet121", 5, False).weights == (1, 1, 1, 1, 100)
    vit = with_recipe(Settings(), "vit_l_16", 5, False)
    assert vit.priors == (0, 0.003, 0.003)
    inner = with_recipe(Settings(), "resnet50", 5, True)
    assert (inner.weights, inner.priors) == ((0.1, 1, 1, 1, 0), (0, 3e-7, 3e-7))


def test_the_command_writes_a_folder(
    lite0_forward: Path, photo_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "seen"
    arguments = [str(lite0_forward), "-t", "967", "-r", str(photo_folder), "-o", str(out)]
    short = ["--steps", "3", "--count", "4", "--provider", "cpu"]
    result = CliRunner().invoke(app, ["visualize", *arguments, *short])
    assert result.exit_code == 0, result.output
    assert "967-class-967.png" in result.output
    assert {file.name for file in out.iterdir()} == {
        "967-class-967.png",
        "967-class-967.transparent.png",
        "contact-sheet.png",
        "animation.webp",
        "visualisation.json",
    }
    wrong = CliRunner().invoke(app, ["visualize", *arguments, "--priors", "1,2"])
    assert wrong.exit_code == InputError.exit_code
    assert "three numbers" in wrong.output


@pytest.mark.sweep
def test_efficientnet_lite0_takes_the_picture_for_the_class(
    photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    Image.fromarray(photographs["coffee"]).save(tmp_path / "coffee.png")
    seen = onnxplain.visualize("efficientnet-lite0", target="espresso", references=tmp_path)
    assert seen.probabilities[0] >= 0.9
