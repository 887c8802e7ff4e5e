"""The paper's SegNet at 224, and several processes: long, by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from onnxplain.runtime.sessions import PROVIDERS
from onnxplain.signal.compiled import open_graph
from onnxplain.signal.export import export_autoencoder
from onnxplain.signal.settings import Settings
from onnxplain.signal.show import pixels_of
from onnxplain.signal.training import Outcome, train
from onnxplain.signal.weights import load_autoencoder, save_autoencoder

from .small import autoencoder, class_folders

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def trained(
    photographs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome, torch.nn.Module, list[Path]]:
    """One step of each stage on photographs, and the graph with the classifier."""
    folder = tmp_path_factory.mktemp("segnet")
    files = []
    for label, names in {"animal": ("chelsea",), "thing": ("coffee", "rocket")}.items():
        (folder / "data" / label).mkdir(parents=True)
        for name in names:
            files.append(folder / "data" / label / f"{name}.png")
            Image.fromarray(photographs[name]).save(files[-1])
    torch.manual_seed(0)
    network = resnet18(num_classes=2).eval()
    steps: list[str] = []
    done = train(
        Settings(str(folder / "data"), classifier="resnet18", epochs=1, tune_epochs=1, batch=2),
        folder / "run",
        classifier=network,
        progress=lambda stage, *_: steps.append(stage),
    )
    assert steps == ["reconstruction", "tuning"]
    export_autoencoder(done.autoencoder, folder / "signal.onnx", network, done.data.classes)
    return folder / "signal.onnx", done, network, files


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_segnets_graph_is_pytorchs_network(
    trained: tuple[Path, Outcome, torch.nn.Module, list[Path]], provider: str
) -> None:
    if (reason := PROVIDERS[provider].missing()) is not None:
        pytest.skip(reason)
    path, done, network, files = trained
    graph = open_graph(path, provider, threads=1)
    for file in files:
        pixels = pixels_of(graph, [file])
        found = graph.run(pixels)
        with torch.no_grad():
            expected = done.autoencoder(torch.from_numpy(pixels))
            logits = network(expected)
        for ours, theirs in ((found["reconstruction"], expected), (found["logits"], logits)):
            reference = theirs.numpy() - theirs.numpy().mean()  # a constant alone would look right
            error = ours - ours.mean() - reference
            assert np.linalg.norm(error) <= 1e-4 * np.linalg.norm(reference)


def test_tensorrt_rtx_compiles_the_segnet(
    trained: tuple[Path, Outcome, torch.nn.Module, list[Path]],
) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt.build import compile_graph

    assert len(compile_graph(trained[0], sm=[89], batches=(1, 4, 8), keep=False).payload) > 0


_CHILD = """
import sys
from pathlib import Path
import torch
from torch import nn
from onnxplain.signal.settings import Settings
from onnxplain.signal.training import train
data, folder, start, epochs, batch = sys.argv[1:6]
torch.manual_seed(3)
linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
settings = Settings(data, size=16, start=start, classifier="linear", batch=int(batch),
                    epochs=int(epochs), tune_epochs=2)
train(settings, Path(folder), resume="resume" in sys.argv, classifier=linear)
"""


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    call += [f"--nproc-per-node={processes}", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


def test_two_processes_of_torchrun_train_one_autoencoder(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", pictures=6)
    child, start = tmp_path / "child.py", tmp_path / "start.pt"
    child.write_text(_CHILD)
    save_autoencoder(autoencoder(), start)
    begun = {name: p.detach() for name, p in autoencoder().decoder.named_parameters()}
    moved = []
    for processes, batch in ((2, 2), (1, 4)):  # tuning has no batch statistics to differ by
        folder = tmp_path / str(processes)
        done = torchrun(processes, child, data, folder, start, 0, batch)
        assert done.returncode == 0, done.stderr
        tuned = dict(load_autoencoder(folder / "autoencoder.pt").decoder.named_parameters())
        moved.append(torch.cat([(tuned[name] - begun[name]).flatten() for name in begun]))
    assert (moved[0] - moved[1]).norm() <= 1e-2 * moved[1].norm()

    done = torchrun(2, child, data, tmp_path / "both", start, 1, 2)
    assert done.returncode == 0, done.stderr
    found = load_autoencoder(tmp_path / "both" / "autoencoder.pt").state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in found.values())
    assert (tmp_path / "both" / "config.json").exists()
    logs = [file.parent.name for file in (tmp_path / "both" / "tensorboard").rglob("events*")]
    assert sorted(logs) == ["reconstruction", "tuning"]  # one process writes
    alone = torchrun(1, child, data, tmp_path / "both", start, 1, 2, "resume")
    assert alone.returncode != 0
    assert "begun by 2 processes" in alone.stderr
