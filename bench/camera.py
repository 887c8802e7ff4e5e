"""What a graph that takes a camera's bytes and draws costs: `python -m onnxplain.bench.camera`.

ResNet-50's explanation from a frame of 640 × 480 pixels: the graph that does all of it, the same
explanation of an input that is ready, and that one with Pillow and NumPy before and behind it, in
interleaved rounds on ONNX Runtime and OpenVINO. Writes bench/results/camera.json;
`python -m onnxplain.bench.readme bench/results/camera.json docs/pictures.md` renders it. It wants
a quiet machine, for some five minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from onnxplain import load
from onnxplain.bench.markdown import markdown
from onnxplain.bench.networks import network, photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.contract.explain import IMAGE, TARGET
from onnxplain.contract.picture import OVERLAY
from onnxplain.export import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine, threads
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions import open_session
from onnxplain.timing import ratio, rounds, timing_of

RESULTS = Path(__file__).resolve().parent / "results/camera.json"

NETWORK, FRAME = "resnet50", (640, 480)
PROVIDERS = {"ONNX Runtime": "cpu", "OpenVINO": "openvino"}
ROUNDS, WARMUP = 150, 5
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

READY = "an input that is ready → pullback"
GRAPH = "pixels → pullback, picture, top 5: one graph"
HOST = "pixels → pullback, picture: Pillow and NumPy around the graph"


def measure() -> dict[str, Any]:
    """What is written: "machine", "threads", "network", "frame" and "engines", ready for JSON.

    An engine has its "name", "rounds", and "rows": of each way its "name", its `Timing` in seconds,
    and "÷ ready", the median of how many times as long it took as `READY` in the same round; and
    "picture", how far the graph's is from the renderer's, in 255ths.
    """
    frame = photographs()[0].resize(FRAME)
    cores = threads()
    torch.set_num_threads(cores)
    module = network(NETWORK, photographs())
    with scratch() as folder, progress_bar() as progress:
        plain, whole = folder / "plain.onnx", folder / "camera.onnx"
        options: dict[str, Any] = {"size": 224, "check": False, "mean": _MEAN, "std": _STD}
        export(module, plain, **options)
        export(module, whole, **options, preprocess=True, picture=OVERLAY, topk=5)
        del module
        task = progress.add_task("", total=len(PROVIDERS) * (WARMUP + ROUNDS))
        engines = []
        for name, provider in PROVIDERS.items():
            progress.update(task, description=name)
            runs = _ways(plain, whole, provider, cores, frame)
            timed = rounds(runs, ROUNDS, WARMUP, lambda *_: progress.advance(task))
            rows = [
                {
                    "name": way,
                    **dataclasses.asdict(timing_of(samples)),
                    "÷ ready": ratio(samples, timed[READY]),
                }
                for way, samples in timed.items()
            ]
            engine = {"name": name, "rounds": ROUNDS, "rows": rows}
            engines.append({**engine, "picture": _apart(whole, provider, frame)})
    about = {"network": NETWORK, "frame": FRAME, "threads": cores}
    return {"machine": machine(), **about, "engines": engines}


def _ways(
    plain: Path, whole: Path, provider: str, cores: int, frame: Image.Image
) -> dict[str, Callable[[], object]]:
    drawn, given = open_session(whole, provider, cores), open_session(plain, provider, cores)
    explainer = load(plain, provider, threads=cores)
    predicted = np.array([-1])
    pixels = {IMAGE: np.asarray(frame)[None], TARGET: predicted}
    ready = {IMAGE: as_batch(frame, explainer.metadata.preprocessing)[0], TARGET: predicted}
    return {
        READY: lambda: given.run(ready),
        GRAPH: lambda: drawn.run(pixels),
        HOST: lambda: explainer(frame).draw(OVERLAY),
    }


def _apart(whole: Path, provider: str, frame: Image.Image) -> int:
    """How far the graph's picture is from the renderer's of the graph's own pullback, in 255ths.

    Of its own one: the network's weights are random, and steps of 1/255 in its input, as
    `docs/camera.md` counts them, change what it says.
    """
    explanation = load(whole, provider)(frame)
    assert explanation.picture is not None
    drawn = np.asarray(explanation.draw(OVERLAY), int)
    return int(np.abs(drawn - explanation.picture[0]).max())


def camera_table(measured: Mapping[str, Any]) -> str:
    """Milliseconds of each way by engine, and how many times as long it took as a ready input."""
    engines = measured["engines"]
    rows = [
        [way, *(_shown(row) for engine in engines for row in engine["rows"] if row["name"] == way)]
        for way in (READY, GRAPH, HOST)
    ]
    machine, (width, height) = measured["machine"], measured["frame"]
    return (
        f"{markdown(['', *(e['name'] for e in engines)], rows)}\n\n"
        f"{measured['network']}, excitation, a frame of {width} × {height}, float32, "
        f"{measured['threads']} threads, medians of {engines[0]['rounds']} interleaved rounds on "
        f"{machine['cpu']}, {machine['cores']} cores, and of the ratios within a round. The "
        f"graph's picture is within {max(e['picture'] for e in engines)}/255 of the renderer's."
    )


def _shown(row: Mapping[str, Any]) -> str:
    return f"{row['median'] * 1e3:.1f} ms, {row['÷ ready']:.3f} ×"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.camera", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    with replacing(given.out) as beside:
        measured = measure()
        beside.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    print(camera_table(measured))


if __name__ == "__main__":
    main()
