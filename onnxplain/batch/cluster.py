"""Ray, on this machine or in a given cluster, and shards through a pool of its actors."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from onnxplain.batch.worker import Job, Worker
from onnxplain.errors import BackendError, InputError
from onnxplain.files import scratch

_OBJECT_STORE = 80 << 20  # bytes, about the least that Ray accepts: no image passes through it
_SECONDS_TO_ANSWER = 10.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # whatever matters arrives as an exception
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # how long orphans of a killed run wait for it
}

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Without clusters, which on Linux it takes for wanted, Ray listens on loopback alone."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A context with Ray: quiet, without its dashboard, and without usage reports.

    Args:
        address: a cluster's ("host:6379", "ray://host:10001", "auto"); None to start Ray on this
            machine, in processes that end with this one, however it ends, and that nobody
            reaches from elsewhere. Their sockets and logs are in a scratch folder.

    Raises:
        BackendError: no cluster answers there, or Ray does not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ[_CLUSTERS] = "0"
    import ray
    from ray._private import ray_constants

    if address is not None:
        _check_that_it_answers(address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    where = "Ray on this machine" if address is None else f"the Ray cluster at '{address}'"
    with ExitStack() as stack:
        try:
            if address is None:
                quiet |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
                quiet["_temp_dir"] = str(stack.enter_context(scratch()))
                ray_constants.ENABLE_RAY_CLUSTER = False  # where Ray had been imported before
                address = "local"  # never join a cluster that happens to run here
            with _native_stderr_muted():
                ray.init(address, **quiet)
        except Exception as error:  # Ray's own when it takes too long is a plain one
            ray.shutdown()
            raise BackendError(f"cannot use {where}: {error}") from error
        try:
            yield
        except BaseException as error:
            # Ray Data ends a run when its iterator is collected, which the frames of the traceback
            # keep alive until Ray is gone; it would then start another one to ask.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            ray.shutdown()


def _check_that_it_answers(address: str) -> None:
    """Ask for an answer: Ray itself would try for ten minutes, and then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return  # "auto", or a name that Ray knows
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise BackendError(f"no Ray cluster answers at '{address}': {error}") from error


@contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """A context without what Ray's C++ writes to stderr itself, such as the level it logs at."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def explained(
    job: Job, shards: Sequence[int], workers: int | None, on_gpu: bool
) -> Generator[dict[str, Any]]:
    """What the workers return for each shard as it is finished, through Ray Data.

    A shard is a block of one row: only its number and its record pass through Ray. So Ray spreads
    the shards, keeps every worker busy and tries again when a machine is lost, while its memory
    does not depend on the images.

    Args:
        workers: processes; None for one per GPU, or as many as the cores allow with
            `job.threads` each.

    Raises:
        InputError: Ray has no room for that many workers.
        BackendError: the workers die.
    """
    import ray
    import ray.data

    kind, each = ("GPU", 1) if on_gpu else ("CPU", job.threads)
    room = int(ray.cluster_resources().get(kind, 0)) // each
    if room < (workers or 1):
        asked = f"{workers} workers" if workers else "a worker"
        raise InputError(
            f"there is no room for {asked} here: each takes {each} {kind}, and Ray sees enough for "
            f"{room}; ask for fewer workers or threads, or for another provider"
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    numbers = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
    )
    pool = ray.data.ActorPoolStrategy(size=min(workers or room, len(shards)))
    records = numbers.map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=pool,
        num_cpus=None if on_gpu else each,
        num_gpus=each if on_gpu else None,
    )
    try:
        yield from records.iter_rows()
    except ray.exceptions.RayError as error:
        raise BackendError(f"Ray: {str(error).splitlines()[-1]}") from error
