"""The main job: export a real network, explain real photographs, check and time it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from onnxplain.contract.explain import IMAGE, TARGET
from onnxplain.extras import LITE0, require
from onnxplain.files import make_folder, replacing, scratch
from onnxplain.machine import load_average, machine
from onnxplain.reference.parity import Parity
from onnxplain.runtime import Explainer, accentuate, load
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.render import Cell, grid, signed_image
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.sessions.onnx_runtime.kernels import described, library
from onnxplain.timing import ratio, rounds, timing_of

Pixels: TypeAlias = NDArray[np.uint8]

NETWORK = "efficientnet-lite0"
TEMPERATURE = 1.0  # EfficientNet-Lite0's; see docs/methods.md on choosing one
TARGETS = 3
ASCENT_STEPS = 5

_OURS = "explain, ONNX Runtime"
_BUSY = 1.5  # processes for each core, beyond what the demo itself keeps busy


def run(folder: Path, repeats: int, console: Console, new_progress: Callable[[], Progress]) -> None:
    """Write `explanations.png`, `measurements.json` and the graphs to `folder`; print the tables.

    Raises:
        MissingPackageError: a package that the demo needs is missing.
        InputError: the folder cannot be written into.
    """
    photographs = _photographs()
    make_folder(folder)
    threads = os.cpu_count() or 1
    with new_progress() as progress:
        task = progress.add_task("exporting", total=4 + repeats)

        def step(description: str) -> None:
            progress.update(task, advance=1, description=description)

        graphs = _exported(folder, step)
        explainers = {method: load(path, threads=threads) for method, path in graphs.items()}
        picture, cells = explanation_grid(photographs, explainers)
        write_image(picture, folder / "explanations.png")
        step("comparing with PyTorch")
        busy = load_average()
        parity, timed = _measured(
            explainers["excitation"],
            list(photographs.values()),
            graphs["excitation"],
            threads,
            repeats,
            step,
            lambda done, total: progress.update(task, completed=4 + done * repeats / total),
        )
    measurements = {
        "network": NETWORK,
        "method": {"name": "excitation", **explainers["excitation"].metadata.parameters},
        "explanations": cells,
        "parity": {name: dataclasses.asdict(value) for name, value in parity.items()},
        "seconds, batch 1": {n: dataclasses.asdict(timing_of(s)) for n, s in timed.items()},
        "÷ our explain, round by round": {n: ratio(s, timed[_OURS]) for n, s in timed.items()},
        "load": busy,
        "kernels": described(),
        "machine": machine(),
    }
    with replacing(folder / "measurements.json") as beside:
        beside.write_text(json.dumps(measurements, indent=1))
    for table in tables(measurements):
        console.print(table)
    if said := busy_machine(busy, threads):
        console.print(said, highlight=False)
    console.print(f"Fused gates and pools: {described()}", highlight=False, markup=False)
    console.print(f"The picture: {folder / 'explanations.png'}", highlight=False)


def _photographs() -> dict[str, Pixels]:
    require("demo", "the demo", (*LITE0, "skimage"))
    import skimage.data

    return {name: getattr(skimage.data, name)() for name in ("chelsea", "coffee", "rocket")}


def _exported(folder: Path, step: Callable[[str], None]) -> dict[str, Path]:
    """Method → its explain graph, which calls the fused operations where they are installed."""
    from onnxplain.export import export

    excitation = folder / f"{NETWORK}.explain.onnx"
    gradient = folder / f"{NETWORK}.gradient.onnx"
    export(NETWORK, excitation, temperature=TEMPERATURE, kernels=library() is not None)
    step("exporting")
    export(NETWORK, gradient, method="gradient")
    step("explaining")
    return {"excitation": excitation, "gradient": gradient}


def _measured(
    explainer: Explainer,
    photographs: list[Pixels],
    graph: Path,
    threads: int,
    repeats: int,
    step: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Parity], dict[str, list[float]]]:
    """How near the explanations are to PyTorch's in float64, and what the first of them takes,
    round by round."""
    import torch

    from onnxplain.export.sources.source import torch_network
    from onnxplain.reference.answers import compare
    from onnxplain.reference.forward import write_forward
    from onnxplain.reference.pytorch import explain

    torch.set_num_threads(threads)
    module = torch_network(NETWORK).module
    dtype = np.dtype(np.float32)
    batch, _ = as_batch(photographs, explainer.metadata.preprocessing, dtype)
    parity = compare(explainer, module, batch, np.full(len(batch), -1))
    step("timing")
    image, target = batch[:1], np.array([-1])
    tensors = torch.from_numpy(image), torch.from_numpy(target)
    with scratch() as folder:
        path = write_forward(graph, folder / "forward.onnx")
        forward = open_session(path, "cpu", threads)
        timed = rounds(
            {
                "forward, ONNX Runtime": lambda: forward.run({IMAGE: image}),
                _OURS: lambda: explainer.backend.run({IMAGE: image, TARGET: target}),
                "explain, PyTorch": lambda: explain(module, *tensors, "excitation", TEMPERATURE),
            },
            repeats=repeats,
            warmup=3,
            progress=progress,
        )
    return parity, timed


def explanation_grid(
    photographs: Mapping[str, Pixels], explainers: Mapping[str, Explainer]
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """A row per photograph and method; for each top class the pullback and the ascent along it.

    Returns:
        The picture, and what its captions say, an entry per photograph and class.
    """
    first = next(iter(explainers.values()))(list(photographs.values()))
    top = np.argsort(-first.logits, axis=1)[:, :TARGETS]
    pictures = [image for image in photographs.values() for _ in range(TARGETS)]
    rows, row_titles = [], []
    entries: list[dict[str, Any]] = [{} for _ in pictures]
    for method, explainer in explainers.items():
        explanation = explainer(pictures, top.reshape(-1))
        ascent = accentuate(explainer, pictures, top.reshape(-1), ASCENT_STEPS)
        temperature = explainer.metadata.parameters.get("temperature")
        title = method if temperature is None else f"{method}\nT = {temperature:g}"
        for i, name in enumerate(photographs):
            row = [Cell(Image.fromarray(first.photographs[i]))]
            for j in range(i * TARGETS, (i + 1) * TARGETS):
                label = explanation.names[j]
                before, after = float(ascent.before[j]), float(ascent.after[j])
                row.append(Cell(signed_image(explanation.pullback[j]), f"{label}\n{before:.1%}"))
                row.append(Cell(signed_image(ascent.difference[j]), f"{label}\nto {after:.1%}"))
                entries[j] |= {"photograph": name, "target": label, "probability": before}
                entries[j][f"probability after {method} ascent"] = after
            rows.append(row)
            row_titles.append(title)
    by_photograph = [
        i + k * len(photographs) for i in range(len(photographs)) for k in range(len(explainers))
    ]
    picture = grid(
        [rows[i] for i in by_photograph],
        ["photograph", *["pullback", f"{ASCENT_STEPS}-step ascent"] * TARGETS],
        [row_titles[i] for i in by_photograph],
    )
    return picture, entries


def busy_machine(load: float | None, cores: int) -> str:
    """What to say where the machine had other work to do while it was measured."""
    if load is None or load <= _BUSY * cores:
        return ""
    return (
        f"The machine was busy, with a load of {load:.1f} on {cores} cores: on an idle one the "
        "ratios may be others."
    )


def tables(measurements: Mapping[str, Any]) -> list[Table]:
    """The measurements as they are printed."""
    classes = Table("photograph", "class", "probability", title=measurements["network"])
    for cell in measurements["explanations"]:
        classes.add_row(cell["photograph"], cell["target"], f"{cell['probability']:.1%}")
    agreement = Table(
        "", "max |difference|", "relative L2", "cosine", title="parity with PyTorch, float64"
    )
    for name, p in measurements["parity"].items():
        agreement.add_row(
            name, f"{p['max_abs']:.1e}", f"{p['relative_l2']:.1e}", f"{p['cosine']:.9f}"
        )
    seconds, ratios = (
        measurements[name] for name in ("seconds, batch 1", "÷ our explain, round by round")
    )
    title = f"{seconds[_OURS]['repeats']} interleaved rounds, compared round by round"
    times = Table("batch 1", "median", "÷ our explain", title=title)
    for name, timing in seconds.items():
        times.add_row(name, f"{timing['median'] * 1e3:.1f} ms", f"{ratios[name]:.2f}")
    return [classes, agreement, times]
