"""What users of other packages try first: their names of arguments, their kinds of pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.precision import PRECISIONS, precision_named
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.sessions import PROVIDERS, preferred, providers

CLASSES, SIZE = ["red", "green", "blue"], 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 3)
    path = tmp_path_factory.mktemp("habits") / "x.onnx"
    onnxplain.export(torch.nn.Sequential(*layers), path, size=SIZE, labels=CLASSES)
    return path


@pytest.fixture(scope="module")
def explainer(path: Path) -> Explainer:
    return onnxplain.load(path, "cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def floats(explainer: Explainer, pixels: np.ndarray) -> np.ndarray:
    pre = explainer.metadata.preprocessing
    normalised = (pixels / 255 - np.array(pre.mean)) / np.array(pre.std)
    return normalised.transpose(0, 3, 1, 2).astype(np.float32)


# ----- names of arguments -----


def test_target_and_targets_are_one_argument(explainer: Explainer, pixels: np.ndarray) -> None:
    expected = explainer(pixels, targets="green").pullback
    np.testing.assert_array_equal(explainer(pixels, target="green").pullback, expected)
    np.testing.assert_array_equal(explainer.explain(pixels, target=1).pullback, expected)
    np.testing.assert_array_equal(explainer.attribute(pixels, target=1), expected)
    np.testing.assert_array_equal(explainer.attribute(pixels, targets=1), expected)
    ends = [accentuate(explainer, pixels, steps=1, **{n: 1}).end for n in ("target", "targets")]
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("positional", [False, True])
def test_both_of_them_are_one_too_many(explainer: Explainer, positional: bool) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    for call in (explainer, explainer.explain, explainer.map, explainer.attribute):
        given: Any = ((image, 1), {}) if positional else ((image,), {"targets": 1})
        other = "targets" if positional and call == explainer.attribute else "target"
        with pytest.raises(InputError, match="the same: give one of them"):
            call(*given[0], **given[1], **{other: 1})


def test_attribute_gives_a_tensors_package_its_own(
    explainer: Explainer, floats: np.ndarray
) -> None:
    given = explainer.attribute(torch.from_numpy(floats), target=2)
    assert isinstance(given, torch.Tensor)
    expected = explainer(floats, 2).pullback
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5, atol=1e-7)


# ----- precisions -----


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("fp32", "float32"), ("float", "float32"), ("FP16", "float16"), ("half", "float16")),
        *(("bf16", "bfloat16"), ("float16", "float16"), ("int8", "int8"), ("tf32", "tf32")),
    ],
)
def test_a_precision_is_found_by_what_others_call_it(said: str, meant: str) -> None:
    assert precision_named(said) == meant


def test_an_unknown_precision_is_an_error_that_names_those_there_are(path: Path) -> None:
    for precision in ("int4", "f16", ""):
        with pytest.raises(BackendError, match="known: float32, tf32, float16, bfloat16, int8"):
            onnxplain.load(path, precision=precision)


def test_every_precision_that_a_provider_offers_is_declared() -> None:
    for provider in PROVIDERS.values():
        assert {*provider.precisions} <= {*PRECISIONS}


def test_auto_finds_every_precision_that_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `doctor` lists; by whatever computes in it, if it is one that auto otherwise leaves."""
    for here in ({"cpu": ("float32", "float16")}, {"tensorrt-rtx": ("bfloat16",)}):
        monkeypatch.setattr(providers, "usable", lambda name, here=here: here.get(name, ()))
        for provider, precisions in here.items():
            for precision in precisions:
                assert next(preferred(precision)) == provider


def test_half_precision_runs_where_the_cpu_alone_is(
    path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        providers, "usable", lambda name: ("float32", "float16") if name == "cpu" else ()
    )
    explainer = onnxplain.load(path, precision="half")
    assert (explainer.backend.name, explainer.backend.precision) == ("onnxruntime", "float16")
    assert explainer(pixels).pullback.shape == (5, 3, SIZE, SIZE)


# ----- whatever holds pictures -----


def test_folders_patterns_and_generators_are_what_their_images_are(
    explainer: Explainer, folder: Path, pixels: np.ndarray
) -> None:
    expected = explainer(pixels).pullback
    files = sorted(folder.iterdir())
    for images in (
        *(folder, str(folder), f"{folder}/*.png", [folder], iter(files), tuple(files)),
        *((Image.fromarray(one) for one in pixels), dict.fromkeys(files).keys()),
    ):
        np.testing.assert_array_equal(explainer(images).pullback, expected)


def test_tensors_in_a_list_and_one_without_a_batch(
    explainer: Explainer, floats: np.ndarray, pixels: np.ndarray
) -> None:
    expected = explainer(floats).pullback
    listed = explainer([torch.from_numpy(one) for one in floats])
    np.testing.assert_array_equal(listed.pullback, expected)
    single = explainer(torch.from_numpy(floats[0]))
    np.testing.assert_allclose(single.pullback.numpy(), expected[:1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explainer(floats[0]).pullback, expected[:1], rtol=1e-4, atol=1e-6)
    decoded = [torch.from_numpy(one.transpose(2, 0, 1).copy()) for one in pixels]  # torchvision's
    np.testing.assert_array_equal(explainer(decoded).pullback, explainer(pixels).pullback)


def test_a_data_loader_gives_images_beside_what_else_it_gives(
    explainer: Explainer, floats: np.ndarray
) -> None:
    data = TensorDataset(torch.from_numpy(floats), torch.arange(5))
    expected = explainer(floats).pullback
    np.testing.assert_allclose(
        explainer(DataLoader(data, batch_size=2)).pullback, expected, rtol=1e-4, atol=1e-6
    )
    mapped = [*explainer.map(DataLoader(data, batch_size=2))]
    assert [len(one) for one in mapped] == [1] * 5
    found = np.concatenate([one.pullback for one in mapped])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_map_holds_no_more_than_a_run(explainer: Explainer, pixels: np.ndarray) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield pixels[taken % 5]

    explanations = explainer.map(endless(), batch_size=3)
    assert taken == 0
    for done in range(1, 8):
        assert len(next(explanations)) == 1
        assert taken == 3 * -(-done // 3)


def test_map_takes_a_target_for_all_or_one_of_each(explainer: Explainer, folder: Path) -> None:
    wanted = ["red", 2, -1, -2, "green"]
    expected = explainer(folder, wanted)
    mapped = [*explainer.map(folder, iter(wanted), batch_size=2)]
    assert [int(one.targets[0]) for one in mapped] == expected.targets.tolist()
    assert mapped[3].sources == [folder / "3.png"]
    assert {int(one.targets[0]) for one in explainer.map(folder, target=1)} == {1}
    with pytest.raises(InputError, match="purple"):
        explainer.map(folder, "purple")  # before any image is read
    with pytest.raises(InputError, match="targets for 2 images"):
        [*explainer.map(folder, [1, 1, 1], batch_size=2)]


def test_progress_is_a_line_that_is_gone_at_the_end(
    explainer: Explainer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([*explainer.map(folder)]) == 5
    assert capsys.readouterr().err == ""  # no terminal
    assert len([*explainer.map(folder, progress=True)]) == 5
    assert capsys.readouterr().err.endswith("\r\x1b[K")


@pytest.mark.parametrize("images", [3, None, b"cat.jpg", object()])
def test_what_holds_no_pictures_is_refused(explainer: Explainer, images: Any) -> None:
    with pytest.raises(InputError, match=r"images are paths, folders, .* not a"):
        explainer(images)


def test_pixels_as_floats_are_warned_of(
    explainer: Explainer, floats: np.ndarray, pixels: np.ndarray
) -> None:
    as_floats = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    with pytest.warns(UserWarning, match=r"from 0 to 255, as pixels are.*give pixels as uint8"):
        explainer(as_floats)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fine in (
            floats,
            as_floats / 255,
            5 * np.random.default_rng(0).normal(size=floats.shape),
        ):
            explainer(fine.astype(np.float32))


# ----- what Python shows -----


def test_explanations_and_explainers_are_shown_in_a_line(
    explainer: Explainer, pixels: np.ndarray, floats: np.ndarray
) -> None:
    explanation = explainer(pixels, [0, 1, 2, 0, 1])
    best = [f"{name} {p:.1%}" for ((name, p),) in explanation.labels(1)[:3]]
    assert repr(explanation) == (
        f"<Explanation: targets red, green, blue, …; predicted {', '.join(best)}, …; pullback "
        f"float32 [5, 3, {SIZE}, {SIZE}]; excitation, temperature 0.3>"
    )
    assert "Sequential, excitation, temperature 0.3; onnxruntime on" in repr(explainer)
    assert f"x.onnx'; {explainer.metadata.source}" in repr(explainer)
    tensors = explainer(torch.from_numpy(floats), 1)
    assert f"pullback=float32 [5, 3, {SIZE}, {SIZE}]" in repr(tensors)
    ascent = accentuate(explainer, pixels, steps=1)
    for shown in (explanation, explanation[:0], explainer, tensors, ascent):
        assert len(repr(shown)) < 400
        assert "\n" not in repr(shown)


def test_dir_has_all_that_there_is_and_nothing_else() -> None:
    assert {"export", "load", "accentuate", "visualize", "verify"} <= {*dir(onnxplain)}
    assert dir(onnxplain) == sorted(onnxplain.__all__)
    assert all(getattr(onnxplain, name) is not None for name in dir(onnxplain))


def test_the_environment_names_the_provider_and_the_precision(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explained(*options: str) -> str:
        arguments = ["explain", str(path), str(folder / "0.png"), "-o", str(tmp_path), *options]
        return CliRunner().invoke(app, arguments).stderr

    monkeypatch.setenv("ONNXPLAIN_PROVIDER", "cpu")
    monkeypatch.setenv("ONNXPLAIN_PRECISION", "half")
    assert "onnxruntime on CPU in float16" in explained()
    assert "onnxruntime on CPU in float32" in explained("--precision", "fp32")
    monkeypatch.setenv("ONNXPLAIN_PROVIDER", "gpu")
    assert "unknown provider 'gpu'" in explained()
