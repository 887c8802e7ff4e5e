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

from onnxplain.runtime.backends import PROVIDERS
from onnxplain.signal.compiled import open_graph
from onnxplain.signal.export import export_autoencoder
from onnxplain.signal.settings import Settings
from onnxplain.signal.show import pixels_of
from onnxplain.signal.training import Outcome, train
from onnxplain.signal.weights import load_autoencoder

from .small import class_folders

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
    from onnxplain.runtime.backends.tensorrt.build import compile_graph

    assert len(compile_graph(trained[0], 89, (1, 4, 8))) > 0


_CHILD = """
import sys
from pathlib import Path
from onnxplain.signal.settings import Settings
from onnxplain.signal.training import train
settings = Settings(sys.argv[1], size=16, autoencoder="segnet-tiny", batch=int(sys.argv[3]),
                    epochs=2, tune_epochs=0)
train(settings, Path(sys.argv[2]), resume="resume" in sys.argv)
"""


def test_two_processes_of_torchrun_train_one_autoencoder(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", pictures=6)
    child = tmp_path / "child.py"
    child.write_text(_CHILD)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for folder in ("one", "two"):
        call = [*run, str(child), str(data), str(tmp_path / folder), "2"]
        subprocess.run(call, check=True, capture_output=True, timeout=300)
    first, again = (load_autoencoder(tmp_path / f / "autoencoder.pt") for f in ("one", "two"))
    for name, tensor in first.state_dict().items():
        assert torch.isfinite(tensor).all()
        assert torch.equal(tensor, again.state_dict()[name])
    assert (tmp_path / "one" / "config.json").exists()
    assert len(list((tmp_path / "one" / "tensorboard").iterdir())) == 1  # one process writes
