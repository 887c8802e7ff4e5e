"""Every command that writes, killed at random moments: `python -m tests.faults.kills [NAME …]`.

Twenty times each. The kills and troubles of each are counted in `bench/results/kills.json`.

A killed command leaves each file as it was or whole and new, and hidden scratch folders, which are
gone once the command has run again. Each run is a child, forked of a process in which everything is
imported, that kills itself when it touches the files for the n-th time, when a file grows beyond n
bytes, or after n seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import av
from PIL import Image

from onnxplain.cli import app
from onnxplain.files import replacing
from onnxplain.machine import machine

from .commands import COMMANDS, OLD, OVER_FILES, material

RESULTS = Path(__file__).resolve().parents[2] / "bench/results/kills.json"
KILLS = 20
_LATE = "onnxplain.evaluation.cells"
"""What commands import when they run, Quantus with it: more than all else that they do there."""
_TOUCHES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link")
_UNFINISHED = {
    *("preview.png", "unfinished.npz", "unfinished.json", "t.json"),
    *("autoencoder.pt", "checkpoint.pt"),
}
"""What `visualize`, `top-images`, `train` and `evaluate` keep until they are done, to go on
from."""
_TIMED = "c.png"
"""Where `choose` draws what explanations cost, as measured."""
_LOG = "events.out.tfevents."
"""How the files of TensorBoard's begin, to which a training adds while it runs."""


def ran(arguments: list[str], root: Path, before: Callable[[], None] = lambda: None) -> int:
    """The wait status of the command in a child; `before` is called there first."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    tempfile.tempdir = str(root / "temporary")
    before()
    status = 1
    try:
        app(arguments, standalone_mode=False)
        status = 0
    finally:
        os._exit(status)


def touching(root: Path, call: Callable[[], None]) -> None:
    """Call whenever something below `root` is created, renamed or removed."""

    def listen(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & os.O_ACCMODE
        if (writes or event in _TOUCHES) and str(root) in str(given[0]):
            call()

    sys.addaudithook(listen)


def at_touch(number: int, root: Path) -> None:
    """Be killed at the n-th of these times."""
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    touching(root, count)


def at_size(size: int) -> None:
    """Be killed when a file grows beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def after(seconds: float) -> None:
    """Be killed after a while."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def state(folder: Path) -> dict[str, str]:
    """What is in each file, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files if _LOG not in path.name}
    return {name: content(path) for name, path in named.items()}


def content(path: Path) -> str:
    """A file's digest; of one that differs from run to run, whether it is whole."""
    data = path.read_bytes()
    if path.suffix == ".json" and b'"machine"' in data:
        with contextlib.suppress(ValueError):
            return "whole" if json.loads(data) else ""
    if path.suffix == ".html" and data.rstrip().endswith(b"</html>"):
        return "whole"
    if path.name == _TIMED and data != OLD:
        with contextlib.suppress(OSError), Image.open(path) as picture:
            picture.load()
            return "whole"
    if path.suffix == ".mkv" and data != OLD:
        with contextlib.suppress(av.error.FFmpegError), av.open(str(path)) as film:
            return "whole" if any(film.decode(video=0)) else "without frames"
    return hashlib.sha256(data).hexdigest()


def trouble(name: str, at: Path, root: Path, rng: random.Random) -> tuple[int, list[str]]:
    """How often a command was killed, and what was wrong then, in words."""
    out, temporary = root / "out", root / "temporary"

    def run(before: Callable[[], None] = lambda: None) -> int:
        return ran([str(argument) for argument in COMMANDS[name](at, out)], root, before)

    for folder in (out, temporary):
        folder.mkdir(parents=True)
    begun = time.perf_counter()
    touches = mmap.mmap(-1, 1 << 16)  # a byte for each, as the child writes them
    if status := run(lambda: touching(root, lambda: touches.write(b"."))):
        return 0, [f"it fails by itself: {status}"]
    seconds, whole = time.perf_counter() - begun, state(out)
    largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
    counted = touches[:].count(b".")
    found, kills = [], 0
    for moment in range(3 * KILLS):  # a moment that is after the end kills nothing
        if kills == KILLS:
            break
        shutil.rmtree(out)
        out.mkdir()
        old: dict[str, str] = {}
        if moment % 2 and name in OVER_FILES:
            for file in whole:
                (out / file).parent.mkdir(parents=True, exist_ok=True)
                (out / file).write_bytes(OLD)
            old = state(out)
        kind = (
            lambda: at_touch(rng.randrange(1, counted + 1), root),
            lambda: at_size(rng.randrange(largest)),
            lambda: after(rng.uniform(0, seconds)),
        )[moment % 3]
        status = run(kind)
        kills += os.WIFSIGNALED(status)
        left = {k: v for k, v in state(out).items() if ".onnxplain-" not in k}
        for file, digest in left.items():
            if (
                digest not in (old.get(file), whole.get(file))
                and Path(file).name not in _UNFINISHED
            ):
                found.append(f"moment {moment}: {file} is neither the old nor the new")
        found += [f"moment {moment}: {file} is gone" for file in old if file not in left]
        if not old and run():
            found.append(f"moment {moment}: it does not run again")
        elif not old and state(out) != whole:
            others = {k for k, v in state(out).items() if whole.get(k) != v} | whole.keys() - state(
                out
            )
            found.append(f"moment {moment}: other files after the next run: {sorted(others)}")
    shutil.rmtree(out)
    out.mkdir()
    run()
    found += [f"left: {path}" for path in (*temporary.iterdir(), *out.rglob(".onnxplain-*"))]
    return kills, found


def write(found: dict[str, tuple[int, list[str]]], path: Path) -> None:
    """Put what was found of some commands beside what was of others."""
    known = json.loads(path.read_text())["commands"] if path.is_file() else {}
    for name, (kills, troubles) in found.items():
        known[name] = {"killed": kills, "troubles": troubles}
    listed = {name: known[name] for name in COMMANDS if name in known}
    with replacing(path) as beside:
        beside.write_text(json.dumps({"machine": machine(), "commands": listed}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.kills", description=__doc__)
    parser.add_argument("names", nargs="*", default=[*COMMANDS], metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    import_module(_LATE)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder, "material")
        at.mkdir()
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(at / "inductor")  # made when it is imported
        material(at)
        for name in given.names:
            kills, found = trouble(name, at, Path(folder, name), random.Random(name))
            print(f"{name}: killed {kills} times", *found, sep="\n  ", flush=True)
            write({name: (kills, found)}, given.out)
            failed |= bool(found) or kills < KILLS
    return failed


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
