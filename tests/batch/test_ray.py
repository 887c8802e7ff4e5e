"""The command, with Ray, and killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from ray._private import ray_constants
from ray._private.services import get_node_ip_address

from onnxplain.batch.cluster import connected
from onnxplain.batch.commit import Folder
from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.plan import Listing, settle
from onnxplain.batch.shard import ShardExplainer
from onnxplain.errors import BackendError
from onnxplain.files import clear

from .lake import make_lake

IMAGES, SHARD = 300, 2
SECONDS = 120  # for Ray to start, on a machine that does other things


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "onnxplain.cli", "batch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def listening(process: subprocess.Popen[str]) -> set[str]:
    """The addresses at which it and its descendants wait for connections."""
    own = psutil.Process(process.pid)
    return {
        connection.laddr.ip
        for each in [own, *own.children(recursive=True)]
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def kill_after_a_shard(process: subprocess.Popen[str], out: Folder) -> None:
    late = time.monotonic() + SECONDS
    while not any(out.commits.glob("0*.json")):
        assert process.poll() is None, process.communicate()
        if time.monotonic() > late:
            process.kill()
            pytest.fail(f"no shard within {SECONDS} s: {process.communicate()}")
        time.sleep(0.01)
    assert (found := listening(process))
    assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_and_resumed_it_is_as_if_nothing_had_happened(model, explainer, recipe, tmp_path):
    lake, out = make_lake(tmp_path / "lake", IMAGES), Folder(tmp_path / "out")
    arguments = [model, lake, "-o", out.path, "--shard-size", SHARD, "--batch-size", 2, "--top", 2]

    kill_after_a_shard(start(*arguments), out)
    assert 0 < len(list(out.commits.glob("0*.json"))) < IMAGES / SHARD
    assert not out.manifest.exists()

    resumed = start(*arguments)
    said, complaints = resumed.communicate(timeout=2 * SECONDS)
    assert resumed.returncode == 1, complaints  # one image is damaged
    assert f"{IMAGES - 1} of {IMAGES} images explained" in said
    assert " of them earlier" in said
    *progress, last = complaints.strip().splitlines()
    assert last.startswith("1 image could not be explained")
    assert all(line.startswith("explaining: ") for line in progress)  # and Ray says nothing
    ids = pyarrow.parquet.read_table(out.table, columns=["id"])["id"].to_pylist()
    assert ids == sorted(map(str, lake.rglob("*.png")))

    undisturbed = Folder(tmp_path / "undisturbed")
    with undisturbed.held():
        items = list_items([str(lake)], Columns())
        plan = settle(undisturbed, replace(recipe, shard_size=SHARD), items)
        listing = Listing(undisturbed.listing)
        shards = ShardExplainer(explainer, plan.recipe, decoders=1)
        for shard in range(plan.shards):
            expected = shards.explain(undisturbed, shard, listing.shard(shard))
            assert out.committed(shard) == expected
            assert out.part(shard).read_bytes() == undisturbed.part(shard).read_bytes()


class TestStarting:
    """Ray itself waits for minutes, and ends in errors of any kind."""

    @pytest.mark.parametrize("error", [Exception("the node timed out"), TimeoutError("30 s")])
    def test_a_start_that_fails_is_a_sentence(self, error, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        sessions = []

        def init(*_, _temp_dir, **__):
            sessions.append(Path(_temp_dir))
            assert sessions[0].is_dir()
            raise error

        monkeypatch.setattr("ray.init", init)
        with pytest.raises(BackendError, match=f"cannot use Ray on this machine: {error}"):
            enter(connected(None))
        assert sessions
        assert [*tmp_path.iterdir()] == []

    def test_no_environment_opens_it(self, tmp_path, monkeypatch):
        """Nor one that names a cluster, with Ray imported before: it is started on loopback."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
        monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
        given = []

        def init(*arguments, **options):
            given.append((arguments, options, get_node_ip_address()))

        monkeypatch.setattr("ray.init", init)
        with connected(None):
            ((arguments, options, node),) = given
        assert (arguments, node) == (("local",), "127.0.0.1")
        assert options["include_dashboard"] is False

    def test_the_next_run_clears_what_a_killed_one_leaves(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        given = {}
        monkeypatch.setattr("ray.init", lambda *_, **options: given.update(options))
        with connected(None):
            folder = Path(given["_temp_dir"])
            clear(tmp_path)
            assert folder.is_dir()  # as it is in use
        folder.mkdir()  # which nobody holds now
        clear(tmp_path)
        assert not folder.exists()

    def test_nobody_answers(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(BackendError, match=f"no Ray cluster answers at '{address}'"):
                enter(connected(address))

    def test_a_folder_that_cannot_be_made_is_a_sentence(self, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("onnxplain.batch.cluster.scratch", full)
        with pytest.raises(BackendError, match=r"cannot use Ray on this machine: .*No space left"):
            enter(connected(None))


def enter(context):
    with context:
        pytest.fail("it started")
