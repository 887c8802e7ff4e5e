"""ONNX Runtime and OpenVINO against PyTorch: `python -m onnxplain.bench.runtimes --help`.

Forward and explanation, on the GPU where there is one and else on the processor, all of a network
and batch in one interleaved run, with the cosine to the float64 reference beside each time.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import numpy as np
import onnxruntime
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from onnxplain import load
from onnxplain.bench import pytorch, reference
from onnxplain.bench.forward import forward_proto
from onnxplain.bench.latency import Timing, interleaved, machine
from onnxplain.bench.parity import Parity
from onnxplain.errors import OnnxplainError
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import torch_network
from onnxplain.files import replacing
from onnxplain.runtime.backends import usable
from onnxplain.runtime.backends.cuda import cuda_options
from onnxplain.runtime.backends.onnx_runtime import session_options

Cases: TypeAlias = tuple[tuple[str, str, dict[str, Any]], ...]

TEMPERATURE = 0.3
TRAINED = ("efficientnet-lite0",)
ON_CPU: Cases = (("cpu", "float32", {}), ("openvino", "float32", {}), ("openvino", "bfloat16", {}))
ON_GPU: Cases = tuple(
    ("cuda", precision, {"cuda_graphs": graphs})
    for precision in ("float32", "tf32", "float16")
    for graphs in (False, True)
)
"""(provider, precision, the provider's options)."""

Run = Callable[[], Any]


def rows(network: str, batch: int, device: str, folder: Path) -> tuple[dict[str, Run], Tensor]:
    """What is timed, by name, and the pullback of the float64 reference for the first image.

    Each returns (logits, pullback) of `batch` images, in any array type; a forward, the logits.
    """
    found = torch_network(network, "DEFAULT" if network in TRAINED else "none")
    module, pre = found.module, found.preprocessing
    path = folder / f"{network}.explain.onnx"
    if not path.exists():
        example = torch.zeros(1, pre.channels, pre.height, pre.width)
        export(module, path, example=example, temperature=TEMPERATURE)
    shape = (batch, pre.channels, pre.height, pre.width)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    targets = torch.arange(batch)
    _, expected = reference.explain(
        copy.deepcopy(module).double(), images[:1].double(), targets[:1], "excitation", TEMPERATURE
    )
    module, images, targets = module.to(device), images.to(device), targets.to(device)
    made: dict[str, Run] = dict(_ours(path, images, targets))
    variants = pytorch.variants(module, TEMPERATURE)
    for name, explain in variants.items():
        made[f"explain, PyTorch {name}"] = _waiting(partial(explain, images, targets), device)
    if device == "cuda":
        graphed = pytorch.recorded(variants["eager"], images, targets)
        made["explain, PyTorch CUDA graph"] = _waiting(partial(graphed, images, targets), device)
    made["forward, PyTorch eager"] = _waiting(partial(_forward, module, images), device)
    return made, expected


def _ours(path: Path, images: Tensor, targets: Tensor) -> Iterator[tuple[str, Run]]:
    for provider, precision, options in ON_GPU if images.is_cuda else ON_CPU:
        if precision not in usable(provider):
            continue
        explainer = load(path, provider, precision, **options)
        graphs = ", CUDA graph" if options.get("cuda_graphs") else ""
        name = f"{provider} {precision}{graphs}"
        if images.is_cuda:
            yield f"explain, {name}", partial(_explained, explainer, images, targets)
        else:
            feeds = {"image": images.numpy(), "target": targets.numpy()}
            yield f"explain, {name}", partial(_fed, explainer.backend, feeds)
    if images.is_cuda:
        provider_options = ("CUDAExecutionProvider", cuda_options("float32", 0, False, None))
        yield "forward, cuda float32", _onnx_forward(path, images, [provider_options])
    else:
        yield "forward, cpu float32", _onnx_forward(path, images, ["CPUExecutionProvider"])


def _explained(explainer: Any, images: Tensor, targets: Tensor) -> tuple[Any, Any]:
    explanation = explainer(images, targets)
    return explanation.logits, explanation.pullback


def _fed(backend: Any, feeds: dict[str, Any]) -> tuple[Any, Any]:
    outputs = backend.run(feeds)
    return outputs["logits"], outputs["pullback"]


def _onnx_forward(path: Path, images: Tensor, providers: list[Any]) -> Run:
    session = onnxruntime.InferenceSession(
        forward_proto(path).SerializeToString(), session_options(), providers=providers
    )
    binding = session.io_binding()
    value = onnxruntime.OrtValue.from_dlpack(images)
    binding.bind_ortvalue_input("image", value)
    binding.bind_output("logits", images.device.type)
    return lambda: session.run_with_iobinding(binding)


@torch.no_grad()
def _forward(module: torch.nn.Module, images: Tensor) -> Any:
    return module(images)


def _waiting(run: Run, device: str) -> Run:
    """The call and the end of the work that it queued on the GPU."""
    if device != "cuda":
        return run

    def wait() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return wait


def measure(network: str, batch: int, device: str, rounds: int, folder: Path) -> dict[str, Any]:
    """One network and batch: a record of every row, its `Timing` and its cosine."""
    runs, expected = rows(network, batch, device, folder)
    cosines = {
        name: Parity.of(_host(run()[1])[:1], expected.numpy()).cosine
        for name, run in runs.items()
        if name.startswith("explain")
    }
    timings: dict[str, Timing] = interleaved(runs, rounds, warmup=3)
    return {
        "network": network,
        "trained": network in TRAINED,
        "batch": batch,
        "rows": [
            {"name": name, **dataclasses.asdict(timing), "cosine": cosines.get(name)}
            for name, timing in timings.items()
        ],
    }


def _host(pullback: Any) -> Any:
    return pullback.float().cpu().numpy() if isinstance(pullback, Tensor) else np.asarray(pullback)


def run(
    networks: Annotated[str, typer.Option(help="Names, with commas between.")] = (
        "resnet50,vgg11_bn,densenet121,efficientnet-lite0"
    ),
    batches: Annotated[
        str, typer.Option(help="Numbers of images, with commas between.")
    ] = "1,8,64",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds that count.")] = 30,
    device: Annotated[str, typer.Option(help="cuda, cpu, or auto: the GPU if there is one.")] = (
        "auto"
    ),
    out: Annotated[Path | None, typer.Option(help="Write the JSON here too.")] = None,
) -> None:
    """Time forward and explanation on every runtime here beside PyTorch's own ways."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where: dict[str, Any] = machine()
    if device == "cuda":
        where["gpu"] = torch.cuda.get_device_name()
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32 for everybody
    console = Console()
    jobs = [(name, int(batch)) for name in networks.split(",") for batch in batches.split(",")]
    records = []
    with TemporaryDirectory() as folder, Progress(console=console) as bar:
        for name, batch in bar.track(jobs, description="runtimes"):
            try:
                record = measure(name, batch, device, rounds, Path(folder))
            except OnnxplainError as error:
                console.print(f"[bold red]error:[/] {name}, batch {batch}: {error}")
                raise typer.Exit(error.exit_code) from None
            records.append(record)
            console.print(f"{name}, batch {batch}")
            for row in sorted(record["rows"], key=lambda row: row["median"]):
                cosine = "" if row["cosine"] is None else f"  cosine {row['cosine']:.6f}"
                console.print(f"  {row['median'] * 1e3:9.2f} ms  {row['name']}{cosine}")
            if out is not None:
                with replacing(out) as beside:
                    beside.write_text(
                        json.dumps({"machine": where, "records": records}, indent=1) + "\n"
                    )


if __name__ == "__main__":
    typer.run(run)
