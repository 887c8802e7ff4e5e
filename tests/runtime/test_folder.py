"""Many files: the same explanations as one by one, in order, whatever the batch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain import files as writing
from onnxplain.cli.explain import explain_images
from onnxplain.contract.picture import PictureOptions
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import Explainer, Explanation, load
from onnxplain.runtime.folder import best_batch_size, explain_files


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    return paths


def keep(path: Path, explanation: Explanation) -> Explanation:
    return explanation


def assert_same(found: Explanation, expected: Explanation) -> None:
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-6)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.photographs, expected.photographs)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("variant", [{}, {"multi_target": True}, {"channels": 1}])
def test_files_are_explained_as_one_by_one(graph_file, files, batch_size, variant):
    explainer = load(graph_file(**variant))
    targets = [-1, 2, "espresso"]
    found = list(explain_files(explainer, files, targets, keep, batch_size=batch_size))
    assert [path for path, _ in found] == files
    for path, explanation in found:
        if variant.get("multi_target"):
            expected = explainer([path], [targets])
        else:
            expected = explainer([path] * 3, targets)
        assert_same(explanation, expected)


def test_an_engine_of_fixed_batch_gets_whole_batches(graph_file, files):
    explainer = load(graph_file(batch=3))
    found = list(explain_files(explainer, files, [-1], keep, batch_size=3))
    for path, explanation in found:
        assert_same(explanation, explainer([path]))
    assert best_batch_size(explainer, files[0]) == 3


def test_an_image_that_cannot_be_read_takes_nothing_with_it(explainer, files):
    files[3].write_bytes(b"no image")
    found = dict(explain_files(explainer, files, [-1], keep, batch_size=4))
    assert isinstance(found.pop(files[3]), InputError)
    for path, explanation in found.items():
        assert_same(explanation, explainer([path]))


def test_no_image_of_a_batch_can_be_read(explainer, files):
    for path in files[:4]:
        path.write_bytes(b"no image")
    found = list(explain_files(explainer, files, [-1], keep, batch_size=2))
    assert [isinstance(made, InputError) for _, made in found] == [True] * 4 + [False] * 3


def test_what_finish_refuses_is_that_images_error(explainer, files):
    def refuse(path: Path, explanation: Explanation) -> None:
        if path == files[1]:
            raise InputError("the disk is full")

    found = dict(explain_files(explainer, files, [-1], refuse))
    assert str(found.pop(files[1])) == "the disk is full"
    assert set(found.values()) == {None}


def test_a_failing_runtime_is_not_an_images_error(explainer, files, monkeypatch):
    def fail(inputs):
        raise BackendError("out of memory")

    monkeypatch.setattr(explainer.backend, "run", fail)
    with pytest.raises(BackendError, match="out of memory"):
        list(explain_files(explainer, files, [-1], keep))


def test_what_was_explained_before_a_failure_is_not_lost(explainer, files, monkeypatch):
    run, calls = explainer.backend.run, []

    def fail_at_the_fourth(inputs):
        calls.append(inputs)
        if len(calls) == 4:
            raise BackendError("out of memory")
        return run(inputs)

    monkeypatch.setattr(explainer.backend, "run", fail_at_the_fourth)
    results = explain_files(explainer, files, [-1], keep)
    assert [path for path, _ in itertools.islice(results, 3)] == files[:3]
    with pytest.raises(BackendError, match="out of memory"):
        next(results)


def test_the_number_of_images_in_memory_is_bounded(explainer, files):
    consumed = 0

    def counted():
        nonlocal consumed
        for path in files * 30:
            consumed += 1
            yield path

    results = explain_files(explainer, counted(), [-1], keep, batch_size=2)
    next(results)
    assert consumed < 20
    results.close()


class Saturating:
    """A backend whose runs cost the same up to four images, on a clock of their own."""

    def __init__(self, explainer: Explainer, most: int) -> None:
        self.clock, self.run, self.most = 0.0, explainer.backend.run, most

    def __call__(self, inputs):
        length = len(inputs["image"])
        if length > self.most:
            raise BackendError("out of memory")
        self.clock += max(length, 4) / 4
        return self.run(inputs)


@pytest.mark.parametrize(("most", "best"), [(64, 4), (2, 2)])
def test_the_best_batch_is_where_more_gains_nothing(explainer, files, monkeypatch, most, best):
    backend = Saturating(explainer, most)
    monkeypatch.setattr(explainer.backend, "run", backend)
    monkeypatch.setattr("onnxplain.timing.time.perf_counter", lambda: backend.clock)
    assert best_batch_size(explainer, files[0]) == best


def test_a_backend_that_cannot_explain_one_says_so(explainer, files, monkeypatch):
    monkeypatch.setattr(explainer.backend, "run", Saturating(explainer, 0))
    with pytest.raises(BackendError, match="out of memory"):
        best_batch_size(explainer, files[0])


def test_an_explanation_that_is_not_finite_is_an_error_of_its_image(graph_file, files):
    explainer = load(graph_file(), "cpu")
    run = explainer.backend.run

    def first_nan(inputs):
        outputs = run(inputs)
        outputs["pullback"] = outputs["pullback"].copy()
        outputs["pullback"][0] = np.nan
        return outputs

    explainer.backend.run = first_nan
    found = dict(explain_files(explainer, files, [-1], keep, batch_size=4))
    failed = [path for path, made in found.items() if isinstance(made, InputError)]
    assert failed == [files[0], files[4]]
    explainer.allow_nonfinite = True
    found = dict(explain_files(explainer, files, [-1], keep, batch_size=4))
    assert not any(isinstance(made, InputError) for made in found.values())


def test_a_full_disk_is_a_sentence(explainer, files, tmp_path, monkeypatch):
    out, made = tmp_path / "out", writing._made

    def on_a_full_disk(parent):
        folder, lock = made(parent)
        (folder / "predictions.jsonl").symlink_to("/dev/full")
        return folder, lock

    monkeypatch.setattr(writing, "_made", on_a_full_disk)
    with pytest.raises(InputError, match=r"cannot write .*predictions.jsonl': No space left"):
        explain_images(explainer, [str(files[0])], out, None, PictureOptions(), None, "1")
    assert not (out / "predictions.jsonl").exists()
