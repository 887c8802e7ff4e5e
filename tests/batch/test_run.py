"""What a run checks before Ray starts, and after it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from onnxplain.batch import Options, explain_lake
from onnxplain.batch.attempt import Attempt
from onnxplain.batch.commit import Folder
from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.plan import Listing, Recipe, settle
from onnxplain.batch.shard import ShardExplainer
from onnxplain.batch.worker import Job, Worker, raise_problem
from onnxplain.cli import app
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import Explainer

from .lake import make_lake

OPTIONS = Options(top=2, batch_size=2, shard_size=5)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "lake", 13)


@pytest.fixture
def complete(explainer: Explainer, recipe: Recipe, lake: Path, tmp_path: Path) -> Folder:
    """A folder in which every shard is done, and the manifest is not yet written."""
    folder = Folder(tmp_path / "out")
    with folder.held():
        plan = settle(folder, recipe, list_items([str(lake)], Columns()))
        listing, shards = Listing(folder.listing), ShardExplainer(explainer, recipe, decoders=1)
        for shard in range(plan.shards):
            shards.explain(folder, shard, listing.shard(shard))
    return folder


def test_the_manifest_has_every_parts_checksum(model, lake, complete):
    summary = explain_lake(model, [str(lake)], complete.path, OPTIONS)
    assert (summary.images, summary.errors, summary.earlier) == (13, 1, 13)
    manifest = json.loads(complete.manifest.read_text())
    assert manifest["images"] == sum(part["rows"] for part in manifest["parts"]) == 13
    assert manifest["errors"] == 1
    for part in manifest["parts"]:
        record = complete.commit(part["shard"], part["rows"], part["errors"])  # hashed anew
        assert part["sha256"] == record.sha256
    assert [part["file"] for part in manifest["parts"]] == sorted(
        path.name for path in complete.table.iterdir()
    )


def test_progress_counts_what_was_done_earlier(model, lake, complete):
    listed, done = [], []
    explain_lake(
        model,
        [str(lake)],
        complete.path,
        OPTIONS,
        listed=listed.append,
        progress=lambda *counts: done.append(counts),
    )
    assert listed == list(range(1, 14))
    assert done == [(13, 13)]


def test_a_part_with_other_rows_than_planned_is_not_passed_over(model, lake, complete):
    complete.commit(1, rows=4, errors=0)
    with pytest.raises(BackendError, match="shard 1 is not whole"):
        explain_lake(model, [str(lake)], complete.path, OPTIONS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(OPTIONS, provider="auto"), "name it with provider="),
        (replace(OPTIONS, shard_size=0), "1 or more"),
        (replace(OPTIONS, store="picture"), "no store 'picture'; choose one of pullback, heatmap"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(model, lake, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        explain_lake(model, [str(lake)], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"target": "cat"}, InputError, "no class names"),
        ({"precision": "int8"}, BackendError, "computes in"),
        ({"model": "0" * 64}, BackendError, r"another file than the run was begun with"),
        ({"onnxplain": "99"}, BackendError, r"has onnxplain .*, and the run is of 99"),
    ],
)
def test_a_worker_hands_its_problem_to_the_run(model, recipe, complete, changed, error, said):
    for record in complete.commits.iterdir():
        record.unlink()
    job = Job(model, complete.path, replace(recipe, **changed), threads=1)
    columns = Worker(job)({"shard": [0]})
    with pytest.raises(error, match=said):
        raise_problem({name: value[0] for name, value in columns.items()})


def test_a_shard_that_ends_its_workers_ends_the_run(model, recipe, complete):
    for record in complete.commits.iterdir():
        record.unlink()
    job = Job(model, complete.path, recipe, threads=1)
    for _ in range(4):
        Attempt(complete.attempts(1))
    row = Worker(job)({"shard": [1]})
    assert row["kind"] == ["BackendError"]
    assert "shard 1 ended its worker 4 times" in row["problem"][0]
    complete.clean()  # as a new run does
    assert Worker(job)({"shard": [1]})["rows"] == [5]


WORKER = """
import os, pickle, sys
from onnxplain.batch import reading
from onnxplain.batch.worker import Worker

load_image = reading.load_image

def crashing(file):
    image = load_image(file)
    if image.getpixel((0, 0)) in DEADLY:
        os._exit(9)
    return image

reading.load_image = crashing
DEADLY, job = pickle.load(sys.stdin.buffer)
Worker(job)({"shard": [1]})
"""


def test_images_that_crash_the_decoder_are_rows_with_an_error(model, recipe, lake, complete):
    for record in complete.commits.iterdir():
        record.unlink()
    paths = sorted(map(str, lake.rglob("*.png")))
    deadly = [6, 8]  # of the shard 5 … 9
    corners = [Image.open(paths[number]).getpixel((0, 0)) for number in deadly]
    given = pickle.dumps((corners, Job(model, complete.path, recipe, threads=1)))
    Attempt(complete.attempts(1))  # the first is over before anything is known
    for index in (1, 3):
        died = subprocess.run([sys.executable, "-c", WORKER], input=given, check=False)
        assert died.returncode == 9
        assert complete.attempts(1).read_text().splitlines()[-1] == f"image {index}"
        assert complete.committed(1) is None
    row = Worker(Job(model, complete.path, recipe, threads=1))({"shard": [1]})
    assert (row["rows"], row["errors"]) == ([5], [2])
    errors = pyarrow.parquet.read_table(complete.part(1), columns=["error"])["error"].to_pylist()
    assert [5 + i for i, error in enumerate(errors) if error] == deadly
    assert "decoding it ends the process" in errors[1]


def test_a_worker_does_not_repeat_what_is_done(model, recipe, complete):
    before = complete.part(0).stat().st_mtime_ns
    row = Worker(Job(model, complete.path, recipe, threads=1))({"shard": [0]})
    assert row["rows"] == [5]
    assert complete.part(0).stat().st_mtime_ns == before


def test_the_command_counts_and_says_what_failed(model, lake, complete):
    options = ["--shard-size", "5", "--batch-size", "2", "--top", "2"]
    command = ["batch", str(model), str(lake), "-o", str(complete.path)]
    ran = CliRunner().invoke(app, [*command, *options])
    assert ran.exit_code == 1
    assert "12 of 13 images explained, 13 of them earlier" in ran.stdout
    assert "1 image could not be explained" in ran.stderr


def test_the_command_refuses_to_resume_with_other_options(model, lake, complete):
    ran = CliRunner().invoke(app, ["batch", str(model), str(lake), "-o", str(complete.path)])
    assert ran.exit_code == InputError.exit_code
    assert "was begun with top 2, not 5" in ran.stderr
