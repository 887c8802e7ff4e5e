"""What runs a step graph needs the file alone: no ONNX tools and no training framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import read_subject

PROGRAM = """
import sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnx", "onnx_ir", "onnxscript", "torch"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())

from onnxplain.runtime.sessions import open_session
from onnxplain.vital import output, references, result, state
from onnxplain.vital.optimisation import Optimisation, optimise
from onnxplain.vital.settings import Settings, with_recipe

settings = with_recipe(Settings(objective="activation", steps=12).checked(), "own", [], False)
run = Optimisation(open_session(Path(sys.argv[1]), "cpu"), settings, [1, 3], [])
kept = Path(sys.argv[2])
optimise(run, kept, lambda run: None)
assert run.done == 12 and run.losses.shape == (12, 2), run.losses.shape
assert (state.Kept.load(kept, "").moment.picture == run.batch).all()
"""


@pytest.fixture
def step(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    subject = read_subject(network.eval(), example=torch.zeros(2, 3, 16, 16), layers=["0"])
    write_step(subject, tmp_path / "step.onnx", objective="activation")
    return tmp_path / "step.onnx"


def test_a_step_file_is_optimised_with_the_runtime_alone(step: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, step, tmp_path / "state.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
