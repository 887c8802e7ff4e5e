"""`onnxplain.visualize`: from a network and photographs to pictures, and their files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import Metadata
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions import PROVIDERS
from onnxplain.vital import engine, optimisation, output, phase, references
from onnxplain.vital.features import fitting
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.optimisation import Optimisation
from onnxplain.vital.phase import Progress
from onnxplain.vital.recipes import recipe_of
from onnxplain.vital.references import views
from onnxplain.vital.result import Visualisation
from onnxplain.vital.schedule import rates
from onnxplain.vital.search.run import top_images
from onnxplain.vital.settings import Flow, Settings, with_recipe
from onnxplain.vital.state import search

from ..traces import once, written_once

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
    """The same as a file, which is read more quickly than a module is traced; of any size."""
    rows, columns = 16 * torch.export.Dim("rows"), 16 * torch.export.Dim("columns")
    open_ = {0: torch.export.Dim("batch"), 2: rows, 3: columns}
    made = once(cache_folder("made") / "visualised.onnx", lambda new: exported(network, new, open_))
    return Path(shutil.copyfile(made, tmp_path_factory.mktemp("network") / "network.onnx"))


@pytest.fixture(autouse=True)
def graphs_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write_step", "write_features"):
        monkeypatch.setattr(phase, name, written_once(getattr(phase, name)))


def exported(
    network: nn.Module, path: Path, open_: dict[int, object] | None, columns: int = SIZE + 16
) -> Path:
    example = torch.zeros(2, 3, SIZE, columns)
    dynamic = None if open_ is None else (open_,)
    torch.onnx.export(
        network, (example,), path, dynamic_shapes=dynamic, external_data=False, verbose=False
    )
    return path


@pytest.fixture
def see(file: Path, photo_folder: Path):
    def see(**options: object) -> Visualisation:
        given = {"references": photo_folder, "settings": SHORT, "size": SIZE, "provider": "cpu"}
        given |= {} if options.keys() & {"channel", "target"} else {"target": 2}
        return onnxplain.visualize(options.pop("source", file), **(given | options))

    return see


@pytest.fixture(scope="module")
def whole(
    file: Path, photographs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Visualisation:
    """What `see()` gives without an interruption."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, pixels in photographs.items():
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    options = {"references": folder, "settings": SHORT, "size": SIZE, "provider": "cpu"}
    return onnxplain.visualize(file, target=2, **options)


class Stop(BaseException):
    """A user's Ctrl-C."""


def stop_at(step: int, stage: str = "optimising") -> Callable[[Progress], None]:
    def progress(now: Progress) -> None:
        if now.stage == stage and now.done >= step:
            raise Stop

    return progress


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("called")


def test_a_picture_comes_nearer_to_the_references_distributions(see) -> None:
    plain = replace(SHORT, objective="activation", references=Settings().references)
    seen = see(target=[2, 5], references=None, settings=plain)
    assert seen.pictures.shape == (2, SIZE, SIZE, 3)
    assert (seen.losses[-1] < seen.losses[0]).all()
    aligned = see(settings=replace(SHORT, steps=60))
    assert aligned.losses[-5:].mean() < 0.5 * aligned.losses[0].mean()
    assert aligned.losses.shape == (60, 1)
    assert 0 <= aligned.alpha.min() < aligned.alpha.max() <= 1


def test_interrupted_and_resumed_it_ends_in_the_same_picture(
    see, whole: Visualisation, tmp_path: Path
) -> None:
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
    matched = objective == "vital"
    count = SHORT.references if matched else Settings().references
    options = {"settings": replace(SHORT, objective=objective, references=count)}
    if matched:
        options |= {"start_size": 32, "start_steps": 8}
    whole = see(**options)
    with pytest.raises(Stop):
        see(**options, state=tmp_path / "state.npz", progress=stop_at(20))
    if matched:
        with pytest.raises(InputError, match="other settings"):
            see(state=tmp_path / "state.npz")
    resumed = see(**options, state=tmp_path / "state.npz")
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)


def test_it_may_begin_with_what_is_pooled(see, tmp_path: Path) -> None:
    begun = {"start_pooled": True, "start_steps": 8, "settings": replace(SHORT, steps=4)}
    whole = see(**begun)
    assert whole.losses.shape == (4, 1)
    with pytest.raises(Stop):
        see(**begun, state=tmp_path / "state.npz", progress=stop_at(4))
    resumed = see(**begun, state=tmp_path / "state.npz")
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)
    with pytest.raises(InputError, match="choose one"):
        see(**begun, start_size=32)
    with pytest.raises(InputError, match="other settings"):
        see(**begun | {"start_steps": 9}, state=tmp_path / "state.npz")


def test_a_pooled_start_is_handed_over_as_it_is(see, tmp_path: Path) -> None:
    """Neither clipped nor rounded to 8 bits; a start at another size is resized as pixels."""
    unclipped = replace(SHORT, steps=1, clip=False)
    see(start_pooled=True, start_steps=4, settings=unclipped, step_graph=tmp_path / "step.onnx")
    image = np.load(tmp_path / "step.npz")["image"]
    pre = Metadata.from_props(read_metadata(tmp_path / "step.onnx")).preprocessing
    pixels = 255 * (image * np.reshape(pre.std, (3, 1, 1)) + np.reshape(pre.mean, (3, 1, 1)))
    assert pixels.min() < -1
    assert pixels.max() > 256
    assert np.abs(pixels - pixels.round()).mean() > 0.1
    with pytest.raises(InputError, match="hands over valid pixels: leave out clip=False"):
        see(start_size=32, settings=unclipped)
    with pytest.raises(InputError, match="start_steps are those of a start"):
        see(start_steps=4)


def test_the_same_seed_gives_the_same_picture_and_another_another(
    see, whole: Visualisation
) -> None:
    first = see()
    np.testing.assert_array_equal(first.pictures, whole.pictures)
    other = see(settings=replace(SHORT, seed=1))
    assert (first.pictures != other.pictures).mean() > 0.5


def test_the_state_of_another_optimisation_is_refused_and_kept(see, tmp_path: Path) -> None:
    state = tmp_path / "unfinished.npz"
    with pytest.raises(Stop):
        see(state=state, progress=stop_at(9))
    kept = state.read_bytes()
    for other in ({"settings": replace(SHORT, seed=1)}, {"provider": "auto"}, {"target": 3}):
        with pytest.raises(InputError, match="other settings"):
            see(**other, state=state)
    state.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(InputError, match="delete it to start again"):
        see(state=state)
    assert state.exists()


def test_references_are_not_run_again_when_it_goes_on(
    see, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo_folder: Path
) -> None:
    options = {"layer": "7", "channel": [3], "state": tmp_path / "state.npz"}
    whole = see(**options | {"state": None})
    with pytest.raises(Stop):
        see(**options, progress=stop_at(3, "searching"))
    assert search(options["state"]).exists()
    with pytest.raises(Stop):
        see(**options, progress=stop_at(9))
    with monkeypatch.context() as patched:
        patched.setattr(phase, "top_images", never)
        patched.setattr(phase, "find_templates", never)
        resumed = see(**options)
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)
    (photo_folder / "rocket.jpg").unlink()
    with pytest.raises(InputError, match="references"):
        see(**options)


def test_a_loss_that_is_no_number_leaves_the_state_before_it(
    see, whole: Visualisation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.npz"
    with monkeypatch.context() as patched:
        broken = rates(SHORT)
        broken[12:] = np.nan
        patched.setattr(optimisation, "rates", lambda settings: broken)
        with pytest.raises(InputError, match=r"lower learning rate .*delete '.*state\.npz'$"):
            see(state=state)
    resumed = see(state=state)
    np.testing.assert_array_equal(resumed.pictures, whole.pictures)
    np.testing.assert_array_equal(resumed.losses, whole.losses)


class Together(nn.Module):
    """Logits that depend, if hardly, on the other images of a batch: it stays as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return logits + 1e-6 * logits.sum(0, keepdim=True)


def test_a_network_with_a_fixed_batch_takes_as_many_neurons(
    see, network: nn.Module, tmp_path: Path, photo_folder: Path
) -> None:
    source = exported(Together(network).eval(), tmp_path / "two.onnx", None, SIZE)
    photographs = sorted(photo_folder.iterdir())
    for name, photograph in zip("14", photographs, strict=False):
        (photo_folder / name).mkdir()
        photograph.rename(photo_folder / name / photograph.name)
    options = {"settings": replace(SHORT, steps=4, references=5), "target": [1, 4]}
    seen, free = see(source=source, size=None, **options), see(**options)
    np.testing.assert_allclose(seen.references, free.references, rtol=1e-4)
    np.testing.assert_allclose(seen.probabilities, free.probabilities, rtol=0.05)
    assert np.abs(seen.pictures.astype(int) - free.pictures).mean() < 2
    with pytest.raises(InputError, match="only takes batches of 2: visualise 2 at a time"):
        see(source=source, size=None, target=1)
    for together, words in ((2, "visualise 1 at a time"), (3, "which together=3 does not divide")):
        settings = replace(SHORT, together=together)
        with pytest.raises(InputError, match=f"only takes batches of 2.*{words}"):
            see(source=source, size=None, target=[1, 4], settings=settings)


def test_probabilities_are_what_the_network_s_end_makes_of_logits(
    see, network: nn.Module, tmp_path: Path
) -> None:
    source = nn.Sequential(network, nn.Sigmoid()).eval()
    path = exported(source, tmp_path / "many.onnx", {0: torch.export.Dim("batch")}, SIZE)
    seen = see(source=path, settings=replace(SHORT, steps=2))
    pre = read_subject(str(path), size=(SIZE, SIZE)).pre
    images = (seen.pictures / 255 - np.array(pre.mean)) / np.array(pre.std)
    right = source(torch.from_numpy(np.moveaxis(images, -1, 1)).float()).detach().numpy()
    np.testing.assert_allclose(seen.probabilities[0], right[0, 2], rtol=1e-3)


@pytest.mark.skipif(PROVIDERS["openvino"].missing() is not None, reason="OpenVINO is not installed")
@pytest.mark.parametrize("what", ["agrees", "disagrees", "cannot open", "cannot run"])
def test_auto_takes_openvino_only_where_it_agrees(
    see, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu = {**PROVIDERS, "cuda": replace(PROVIDERS["cuda"], missing=lambda: "no GPU")}
    monkeypatch.setattr(engine, "PROVIDERS", no_gpu)
    iterate, opened = Optimisation._iterated, engine.open_session

    def failing(path: Path, provider: str, *more: object) -> object:
        if provider == "openvino":
            raise BackendError("no")
        return opened(path, "cpu", *more)

    def other(run: Optimisation, steps: int) -> object:
        found = iterate(run, steps)
        if run.graph.provider != "openvino":
            return found
        if what == "cannot run":
            raise BackendError("no")
        return {name: array * 1.1 for name, array in found.items()}

    if what == "cannot open":
        monkeypatch.setattr(engine, "open_session", failing)
    elif what != "agrees":
        monkeypatch.setattr(Optimisation, "_iterated", other)
    seen = see(provider="auto", references=None, settings=_plain())
    assert seen.provider == ("openvino" if what == "agrees" else "cpu")


def test_neurons_may_be_numpy_s(see) -> None:
    plain = see(target=[2, 5], references=None, settings=_plain())
    for target in (np.array([2, 5]), [np.int64(2), np.int32(5)]):
        seen = see(target=target, references=None, settings=_plain())
        np.testing.assert_array_equal(seen.pictures, plain.pictures)
    one = see(target=np.int64(5), references=None, settings=_plain())
    assert one.neurons == (5,)


def test_a_channel_s_activation_needs_no_relevance(see, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase, "write_features", never)
    assert len(see(layer="7", channel=np.array([3]), references=None, settings=_plain())) == 1


def test_views_are_by_their_number_and_a_photograph_is_decoded_once(
    file: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pre = read_subject(str(file), size=(SIZE, SIZE)).pre
    photographs, opened = sorted(photo_folder.iterdir()), []
    load = references.load_image

    def counted(path: Path) -> Image.Image:
        opened.append(path)
        return load(path)

    monkeypatch.setattr(references, "load_image", counted)
    some = list(views(photographs, pre, [1, 4, 7, 10, 5], 0))
    assert opened == [photographs[1], photographs[2]]
    (alone,) = views(photographs, pre, [7], 0)
    np.testing.assert_array_equal(alone, some[2])
    assert not np.array_equal(some[1], some[2])


def test_a_crop_fills_the_input(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pre = read_subject(str(file), size=(SIZE, SIZE)).pre
    framed = np.zeros((80, 100, 3), np.uint8)
    framed[[0, 1, 2, -3, -2, -1]] = framed[:, [0, 1, 2, -3, -2, -1]] = 255
    Image.fromarray(framed).save(tmp_path / "framed.png")
    monkeypatch.setattr(references, "_random_crop", lambda photograph, chance: photograph)
    (view,) = views([tmp_path / "framed.png"], pre, [1], 0)
    assert view.shape == (3, SIZE, SIZE)
    white = (1 - np.array(pre.mean)) / np.array(pre.std)
    np.testing.assert_allclose(view[:, 0, 0], white, atol=0.1)
    np.testing.assert_allclose(view[:, -1, -1], white, atol=0.1)
    assert fitting(pre).resize == SIZE


def test_runs_of_references_are_reported(see) -> None:
    reported: list[Progress] = []
    see(settings=replace(SHORT, steps=1), progress=reported.append)
    done = [now.done for now in reported if now.stage == "references"]
    assert done == sorted(done)
    assert 0 < done[0] < SHORT.references  # also while crops are chosen
    assert done[-1] == SHORT.references


def test_a_channel_is_seen_through_the_layers_before_it(see) -> None:
    seen = see(layer="7", channel=[3, 0], settings=replace(SHORT, relevance="restricted"))
    assert seen.names == ("7 channel 3", "7 channel 0")
    assert np.isnan(seen.probabilities).all()
    assert len(seen.layers) == 3  # and none behind it
    assert (seen.pictures[0] != seen.pictures[1]).any()


@pytest.mark.parametrize(
    ("setting", "flow"),
    [
        ({"pool_rule": "vital"}, {"pool": "vital"}),
        ({"skip_rule": "half"}, {"skip": "half"}),
        ({"relevance_share": 0.5}, {"share": 0.5}),
        ({"relevance": "guided"}, {"kind": "guided"}),
    ],
)
def test_each_choice_of_relevance_reaches_both_graphs(
    see, setting: dict[str, Any], flow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def features(subject: Subject, path: Path, flow: Flow) -> None:
        written.append(flow)
        write_features(subject, path, flow)

    def step(subject: Subject, path: Path, **options: Any) -> None:
        written.append(options["flow"])
        write_step(subject, path, **options)

    monkeypatch.setattr(phase, "write_features", features)
    monkeypatch.setattr(phase, "write_step", step)
    see(layer="7", channel=3, settings=replace(SHORT, steps=1, **setting))
    assert written == [Flow(**flow)] * 2


@pytest.mark.parametrize(("given", "folded"), [("folded", True), ("apart", False)])
def test_batch_norms_are_folded_or_stay_apart(
    see, given: str, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(*of: Any, fold_norms: bool, **options: Any) -> Subject:
        asked.append(fold_norms)
        return read_subject(*of, fold_norms=fold_norms, **options)

    monkeypatch.setattr("onnxplain.vital.graphs.subject.read_subject", read)
    see(layer="7", channel=3, settings=replace(SHORT, steps=1, batch_norm=given))
    assert asked == [folded]


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [("max", ("max", None)), ("mean", ("mean", None)), ("patches", ("mean", 14))],
)
def test_each_ranking_is_a_search(
    see, ranking: str, expected: tuple[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def search_(*of: Any, **options: Any) -> Any:
        searched.append((options["by"], options["patch"]))
        return top_images(*of, **options)

    monkeypatch.setattr(phase, "top_images", search_)
    see(layer="7", channel=3, settings=replace(SHORT, steps=1, ranking=ranking))
    assert searched == [expected]


def test_choices_of_the_authors_are_checked() -> None:
    with pytest.raises(InputError, match="skip_rule is one of ratio, half"):
        replace(SHORT, skip_rule="none").checked()
    with pytest.raises(InputError, match="relevance_share must be above 0, not 0"):
        replace(SHORT, relevance_share=0).checked()


def test_pictures_of_a_class_may_be_aligned_together(see, photo_folder: Path) -> None:
    for name, file in (("2", "rocket.jpg"), ("5", "coffee.jpg")):
        (photo_folder / name).mkdir()
        (photo_folder / file).rename(photo_folder / name / file)
    settings = replace(SHORT, steps=3, together=2)
    seen = see(target=[2, 5], settings=settings)
    assert seen.names == ("class 2, 1", "class 2, 2", "class 5, 1", "class 5, 2")
    assert seen.neurons == (2, 2, 5, 5)
    np.testing.assert_array_equal(seen.losses[:, ::2], seen.losses[:, 1::2])
    assert (seen.pictures[0] != seen.pictures[1]).any()
    alone = see(target=5, settings=settings)
    np.testing.assert_allclose(alone.losses, seen.losses[:, 2:], rtol=1e-3)
    with pytest.raises(InputError, match="for a class, aligned"):
        see(layer="7", channel=3, settings=settings)


def test_grey_photographs_are_not_ranked_for_a_channel(
    see, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much they excite it, there are as many in colour as are asked for."""
    black, white = np.zeros((8, 64), np.uint8), np.full((8, 64), 255, np.uint8)
    stripes = Image.fromarray(np.concatenate([black, white] * 4))
    for i in range(3):
        stripes.save(photo_folder / f"grey{i}.png")
    (photo_folder / "again.jpg").symlink_to(photo_folder / "rocket.jpg")
    taken: list[Path] = []
    find = phase.find_templates

    def spy(graph, layers, pre, photographs, *of, **options):
        taken.extend(photographs)
        return find(graph, layers, pre, photographs, *of, **options)

    monkeypatch.setattr(phase, "find_templates", spy)
    see(layer="7", channel=3, settings=replace(SHORT, steps=1, references=2))
    assert len(taken) == 2
    assert not [file for file in taken if file.name.startswith("grey")]


def test_pictures_in_a_batch_are_as_each_alone(see) -> None:
    both, alone = (
        see(target=[1, 4], references=None, settings=_plain()),
        see(target=4, references=None, settings=_plain()),
    )
    difference = both.pictures[1].astype(int) - alone.pictures[0]
    assert np.abs(difference).mean() < 2


def _plain() -> Settings:
    return replace(SHORT, objective="activation", steps=4, references=Settings().references)


def test_each_class_has_the_folder_of_its_name(see, tmp_path: Path, photo_folder: Path) -> None:
    folder = tmp_path / "classes"
    for number, file in enumerate(sorted(photo_folder.iterdir())[:2]):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / file.name).write_bytes(file.read_bytes())
    settings = replace(SHORT, references=1, steps=1)
    both = see(target=[0, 1], references=folder, settings=settings)
    for i in (0, 1):
        alone = see(target=i, references=folder / str(i), settings=settings)
        np.testing.assert_allclose(both.losses[0, i], alone.losses[0, 0], rtol=1e-3)
        np.testing.assert_allclose(both.references[i], alone.references[0], rtol=1e-4)
    for target in ([0, 3], 3):  # nor another class's photographs for one
        with pytest.raises(InputError, match=r"'0', '1'.*none is named '3'"):
            see(target=target, references=folder)


def test_all_folders_of_a_class_are_taken(photo_folder: Path) -> None:
    own = []
    for name, photograph in zip(["3", "Tabby"], sorted(photo_folder.iterdir()), strict=False):
        (photo_folder / name).mkdir()
        own.append(photograph.rename(photo_folder / name / photograph.name))
    labels = ["", "", "", "tabby"]
    assert references.reference_folders(photo_folder, [3], labels) == [sorted(own)]


def test_all_of_it_is_written(see, tmp_path: Path) -> None:
    seen = see(target=[1, 4, 5, 2, 0], references=None, settings=_plain())
    written = output.write(seen, tmp_path)
    assert [Image.open(path).size for path in written] == [(SIZE, SIZE)] * 5
    assert np.asarray(Image.open(tmp_path / "4-class-4.transparent.png")).shape == (SIZE, SIZE, 4)
    animation = Image.open(tmp_path / output.ANIMATION)
    assert animation.n_frames == len(seen.frames) == 4
    assert animation.size == (4 * SIZE, 2 * SIZE)
    found = json.loads((tmp_path / output.FIGURES).read_text())
    assert [neuron["index"] for neuron in found["neurons"]] == [1, 4, 5, 2, 0]
    assert found["provider"] == "cpu"
    losses = [neuron["loss"] for neuron in found["neurons"]]
    np.testing.assert_allclose(np.transpose(losses), seen.losses, atol=1e-5)
    assert Image.open(tmp_path / output.SHEET).width > 4 * SIZE


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": CLASSES}, InputError, "7 classes"),
        ({"target": "tabby"}, InputError, "no class names"),
        ({"target": [1, 4, 1]}, InputError, "1 is given twice"),
        ({"target": []}, InputError, "no neuron"),
        ({"target": 1.5}, InputError, r"not 1\.5"),
        ({"target": True}, InputError, "not True"),
        ({"state": Path("nowhere/state.npz")}, InputError, "folder nowhere does not exist"),
        ({"step_graph": Path("nowhere/step.onnx")}, InputError, "folder nowhere does not exist"),
        ({"target": 1, "channel": 1}, InputError, "give a target, or a layer"),
        ({"channel": 1}, InputError, "give a target, or a layer"),
        ({"layer": "7", "channel": 99}, InputError, "16 channels"),
        ({"layer": "convolution", "channel": 0}, SourceError, "no layer 'convolution'"),
        ({"layers": ["0", "99"]}, SourceError, "no layer '99'"),
        ({"references": None}, InputError, "give a folder of photographs"),
        ({"references": Path("nowhere")}, InputError, "is no folder"),
        ({"settings": Settings(objective="beauty")}, InputError, "vital, activation, fourier"),
        ({"settings": Settings(steps=0)}, InputError, "at least 1"),
        ({"settings": Settings(weights=(1.0, 2.0))}, InputError, "2 weights for 5 matched"),
        ({"settings": Settings(relevance="tea")}, InputError, "lrp, restricted, guided"),
        ({"settings": Settings(relevance_share=1.5)}, InputError, "relevance_share must be at mo"),
        ({"settings": Settings(priors=(0.0, float("nan"), 0.0))}, InputError, "finite"),
    ],
)
def test_what_cannot_be_is_said(see, options, error, words: str) -> None:
    with pytest.raises(error, match=words):
        see(**options)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"layer": "7", "channel": 3}, {"relevance": "guided", "pool_rule": "vital"}),
        ({"layer": "7", "channel": 3}, {"relevance": "guided", "skip_rule": "half"}),
        ({"layer": "7", "channel": 3}, {"relevance": "guided", "relevance_share": 0.5}),
        ({"layer": "7", "channel": 3}, {"objective": "activation", "ranking": "mean"}),
        ({"target": 1}, {"relevance": "guided"}),
        ({"target": 1}, {"ranking": "patches"}),
        ({"target": 1}, {"skip_rule": "half"}),
        ({"target": 1}, {"batch_norm": "apart"}),
        ({"target": 1}, {"objective": "fourier", "clip": False}),
        ({"target": 1}, {"objective": "activation", "resize": 40}),
        ({"target": 1}, {"objective": "fourier", "weights": (1.0,) * 5}),
        ({"target": 1}, {"objective": "activation", "references": 6}),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(see, options, changed) -> None:
    name = list(changed)[-1]
    with pytest.raises(InputError, match=f"^{name}.* is for .*; leave it out$"):
        see(settings=Settings(**changed), **options)


def test_the_step_s_graph_runs_in_plain_onnx_runtime(see, tmp_path: Path) -> None:
    seen = see(step_graph=tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    with np.load(tmp_path / "step.npz") as first:
        losses, steps = session.run(["next_losses", "next_step"], dict(first))
    assert steps == 1
    np.testing.assert_allclose(losses[0], seen.losses[0], rtol=1e-5)


def test_the_source_is_not_written_over(see, file: Path) -> None:
    before = file.read_bytes()
    for option in ("step_graph", "state"):
        with pytest.raises(InputError, match="the source itself"):
            see(**{option: file})
    assert file.read_bytes() == before


def test_an_unreadable_reference_is_named(see, photo_folder: Path) -> None:
    (photo_folder / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        see()
    for file in photo_folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no image found"):
        see()


def test_rates_warm_up_and_fall_as_a_cosine() -> None:
    usual = rates(Settings())
    np.testing.assert_allclose(usual[[0, 49, 99]], [0.01, 0.5, 1], rtol=1e-6)
    np.testing.assert_allclose(usual[[100, 1050]], [1, 0.5], rtol=1e-6)
    assert 0 < usual[-1] < 1e-5
    assert rates(Settings(steps=40))[1] == 1


def test_recipes_are_the_paper_s() -> None:
    def filled(name: str, neuron: bool) -> Settings:
        recipe = recipe_of(name)
        assert recipe is not None
        return with_recipe(Settings(), name, recipe.layers, neuron)

    assert filled("densenet121", False).weights == (1, 1, 1, 1, 100)
    assert filled("vit_l_16", False).priors == (0, 0.003, 0.003)
    inner = filled("resnet50", True)
    assert (inner.weights, inner.priors) == ((0.1, 1, 1, 1, 0), (0, 3e-7, 3e-7))


def test_a_recipe_s_weights_are_for_its_own_layers_alone() -> None:
    own = [f"encoder.layers.encoder_layer_{i}" for i in range(5)]
    others = with_recipe(Settings(), "vit_l_32", own, False)
    assert (others.weights, others.priors) == ((1, 1, 1, 1, 1), (0, 0, 0))


def command(file: Path, photo_folder: Path, out: Path, *more: str) -> Sequence[str]:
    given = ["visualize", str(file), "-t", "2", "-r", str(photo_folder), "-o", str(out)]
    return [*given, "--count", "6", "--size", f"{SIZE}x{SIZE}", "--provider", "cpu", *more]


def test_the_command_writes_a_folder(file: Path, photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    arguments = command(file, photo_folder, out, "--steps", "3")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2-class-2.png" in result.output
    assert {file.name for file in out.iterdir()} == {
        "2-class-2.png",
        "2-class-2.transparent.png",
        "contact-sheet.png",
        "animation.webp",
        "visualisation.json",
    }
    wrong = CliRunner().invoke(app, [*arguments, "--priors", "1,2"])
    assert wrong.exit_code == InputError.exit_code
    assert "three numbers" in wrong.output
    settings = json.loads((out / "visualisation.json").read_text())["settings"]
    assert settings["references"] == 6
    assert "betas" not in settings  # as it was not given
    unused = CliRunner().invoke(
        app, [*command(file, photo_folder, tmp_path / "new"), "--objective", "activation"]
    )
    assert unused.exit_code == InputError.exit_code
    assert "references (--count) is for references" in unused.output
    assert not (tmp_path / "new").exists()


def test_the_command_s_help_is_of_its_own_options() -> None:
    shown = CliRunner().invoke(app, ["visualize", "--help"]).output
    assert "tensorrt-rtx" in shown
    assert "predicted class" not in shown


def test_a_command_that_is_interrupted_ends_in_the_same_picture(
    file: Path, photo_folder: Path, tmp_path: Path
) -> None:
    steps = ["--steps", "200"]
    whole, out = tmp_path / "whole", tmp_path / "interrupted"
    result = CliRunner().invoke(app, command(file, photo_folder, whole, *steps))
    assert result.exit_code == 0, result.output
    arguments = command(file, photo_folder, out, *steps)
    process = subprocess.Popen([sys.executable, "-m", "onnxplain.cli", *arguments])
    while process.poll() is None and not (out / "preview.png").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert (out / "unfinished.npz").exists()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "going on from" in result.output
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    name = "2-class-2.png"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_what_the_command_cannot_write_it_says(
    file: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preview.png").mkdir()
    result = CliRunner().invoke(app, command(file, photo_folder, tmp_path, "--steps", "2"))
    assert result.exit_code == InputError.exit_code, result.output
    assert "preview.png" in result.output
    assert (tmp_path / "unfinished.npz").exists()
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    result = CliRunner().invoke(app, command(file, photo_folder, tmp_path))
    assert result.exit_code == InputError.exit_code
    assert "no permission" in result.output


@pytest.mark.sweep
def test_efficientnet_lite0_takes_the_picture_for_the_class(
    photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    Image.fromarray(photographs["coffee"]).save(tmp_path / "coffee.png")
    seen = onnxplain.visualize("efficientnet-lite0", target="espresso", references=tmp_path)
    assert seen.probabilities[0] >= 0.9
