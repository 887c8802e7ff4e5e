"""`onnxplain batch` over thousands of images: killed and resumed, its speed and its memory.

    python -m onnxplain.bench.lake bench/results/lake.json [--images 5000] [--seed N]

The images are photographs cropped, turned, mirrored and brightened at random, as JPEG; a few files
are damaged. Four runs of EfficientNet-Lite0 with its ImageNet weights:

1. a fifth of the images: peak memory;
2. all of them: speed and peak memory, between two halves of the bare loop `explainer(paths)` with
   the same model, batch size, and threads in all, decoding included;
3. all of them again, killed with SIGKILL three times at random moments, and resumed.

With fewer than some 1,000 images the fifth is over before the workers hold what they will hold.

It fails (status 1) unless the table of 3 has every image exactly once and is, byte for byte, that
of 2; batch does at least 0.9 × the images per second of the bare loop; and the memory of 2 is at
most 1.1 × that of 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
from PIL import Image, ImageEnhance

from onnxplain.bench.networks import photographs
from onnxplain.bench.peak_memory import PeakMemory
from onnxplain.export import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine, threads
from onnxplain.runtime import Explainer, load

KILLS = 3
LEAST_SPEED, MOST_MEMORY = 0.9, 1.1

_DAMAGED_EVERY = 500
_BATCH = 4  # what `onnxplain batch` puts into a run on a processor
_SHARD = 64
_DONE = (0, 1)  # 1: some images could not be read


def make_images(folder: Path, count: int, seed: int = 0) -> int:
    """Write `count` images, and say how many of them are damaged."""
    folder.mkdir(parents=True)
    sources = photographs()
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        source = sources[i % len(sources)]
        scale = rng.uniform(0.5, 1)
        width, height = int(scale * source.width), int(scale * source.height)
        left = int(rng.integers(source.width - width + 1))
        top = int(rng.integers(source.height - height + 1))
        image = source.crop((left, top, left + width, top + height))
        image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=int(rng.integers(70, 96)))
        if i % _DAMAGED_EVERY == _DAMAGED_EVERY // 2:
            path.write_bytes(path.read_bytes()[: int(rng.integers(2000))])
    return len(range(_DAMAGED_EVERY // 2, count, _DAMAGED_EVERY))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m onnxplain.bench.lake")
    parser.add_argument("results", type=Path, help="the JSON file to write")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    given = parser.parse_args()
    with scratch() as folder:
        result = measure(folder, given.images, given.seed)
    text = json.dumps({"machine": machine(), **result}, indent=1, ensure_ascii=False)
    with replacing(given.results) as beside:
        beside.write_text(text + "\n", "utf-8")
    print(text)
    raise SystemExit(0 if holds(result) else 1)


def measure(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """All figures; `folder` takes the images and the tables."""
    model, lake, few = folder / "lite0.onnx", folder / "lake", folder / "few"
    export("efficientnet-lite0", model, temperature=1.0)
    _say(f"making {count} images")
    damaged = make_images(lake, count)
    make_images(few, count // 5)

    _say(f"batch over {count // 5}")
    _, less_memory = _whole_run(model, few, folder / "fewer")
    paths = [path for path in sorted(lake.rglob("*.jpg")) if not _is_damaged(path)]
    explainer = load(model, "cpu", threads=threads())
    _say("the bare loop, first half")
    bare = [_bare_rate(explainer, paths[0::2])]
    _say(f"batch over {count}")
    seconds, memory = _whole_run(model, lake, folder / "whole")
    _say("the bare loop, second half")
    bare.append(_bare_rate(explainer, paths[1::2]))
    _say("batch, killed and resumed")
    kills = _killed_run(model, lake, folder / "killed", random.Random(seed))
    whole, killed = folder / "whole", folder / "killed"
    loop = 2 / sum(1 / rate for rate in bare)
    return {
        "images": count,
        "damaged": damaged,
        "seed": seed,
        "kills": kills,
        "every image once": _every_image_once(lake, killed, damaged),
        "equal to the uninterrupted run": _equal(whole, killed),
        "images per second": {
            "batch": count / seconds,
            "batch, once its workers are there": _steady_rate(whole, count),
            "bare loop": loop,
            "bare loop, halves": bare,
        },
        "batch ÷ bare loop": count / seconds / loop,
        "peak memory in bytes": {str(count // 5): less_memory, str(count): memory},
        "memory ÷ memory of a fifth of the images": memory / less_memory,
    }


def holds(result: dict[str, Any]) -> bool:
    """Whether the figures are what `onnxplain batch` promises."""
    return (
        result["every image once"]
        and result["equal to the uninterrupted run"]
        and result["batch ÷ bare loop"] >= LEAST_SPEED
        and result["memory ÷ memory of a fifth of the images"] <= MOST_MEMORY
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_damaged(path: Path) -> bool:
    return int(path.stem) % _DAMAGED_EVERY == _DAMAGED_EVERY // 2


def _start(model: Path, lake: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "onnxplain.cli", "batch", model, lake, "-o", out]
    return subprocess.Popen([*map(str, command), "--shard-size", str(_SHARD)])


def _whole_run(model: Path, lake: Path, out: Path) -> tuple[float, int]:
    """Seconds of the whole command, and its peak memory in bytes."""
    start = time.perf_counter()
    process = _start(model, lake, out)
    with PeakMemory(process.pid) as peak:
        status = process.wait()
    if status not in _DONE:
        raise SystemExit(f"onnxplain batch ended with status {status}")
    return time.perf_counter() - start, peak.bytes


def _killed_run(model: Path, lake: Path, out: Path, rng: random.Random) -> list[int]:
    """Killed three times, then left to finish; the shards that were done at each kill."""
    shards = -(-sum(1 for _ in lake.rglob("*.jpg")) // _SHARD)
    kills = []
    for until in sorted(rng.uniform(0, 0.75) * shards for _ in range(KILLS)):
        process = _start(model, lake, out)
        while _done(out) < until and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 5))  # also while Ray starts
        process.send_signal(signal.SIGKILL)
        if (status := process.wait()) != -signal.SIGKILL:
            raise SystemExit(f"onnxplain batch ended with {status} before it was killed")
        kills.append(_done(out))
    _whole_run(model, lake, out)
    return kills


def _done(out: Path) -> int:
    return sum(1 for _ in (out / "commits").glob("[0-9]*.json"))


def _steady_rate(out: Path, count: int) -> float:
    """Images per second between the first and the last file of the table."""
    times = sorted(part.stat().st_mtime for part in (out / "table").glob("*.parquet"))
    return count * (len(times) - 1) / len(times) / (times[-1] - times[0])


def _bare_rate(explainer: Explainer, paths: list[Path]) -> float:
    """Images per second of the runtime alone."""
    explainer(paths[:_BATCH])
    start = time.perf_counter()
    for first in range(0, len(paths), _BATCH):
        explainer(paths[first : first + _BATCH])
    return len(paths) / (time.perf_counter() - start)


def _every_image_once(lake: Path, out: Path, damaged: int) -> bool:
    table = pyarrow.dataset.dataset(out / "table").to_table(columns=["index", "id", "error"])
    expected = sorted(map(str, lake.rglob("*.jpg")))
    return (
        sorted(table["id"].to_pylist()) == expected
        and sorted(table["index"].to_pylist()) == list(range(len(expected)))
        and len(table) - table["error"].null_count == damaged
    )


def _equal(one: Path, other: Path) -> bool:
    """The same files, byte for byte, in the table; and what the manifest says of them is true."""
    names = [sorted(part.name for part in (run / "table").iterdir()) for run in (one, other)]
    parts = [json.loads((run / "manifest.json").read_text())["parts"] for run in (one, other)]
    digests = [
        [hashlib.sha256((run / "table" / name).read_bytes()).hexdigest() for name in names[0]]
        for run in (one, other)
    ]
    return (
        names[0] == names[1]
        and digests[0] == digests[1] == [part["sha256"] for part in parts[1]]
        and parts[0] == parts[1]
    )


if __name__ == "__main__":
    main()
