"""The kernels as PyTorch layers, interpreted, and what they say where they cannot run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from onnxplain.errors import InputError
from onnxplain.kernels.pool import Pool
from onnxplain.kernels.torch_ops import relu_soft_gate, soft_gate, soft_max_pool_grad
from onnxplain.reference import explain

from .interpreted import ROOT

NETWORK = """
import torch
from torch import nn
from onnxplain.reference.parity import Parity
from onnxplain.reference import explain

torch.manual_seed(0)
layers = [
    nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.ReLU6(),
    nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2, 1, ceil_mode=True),
    nn.Flatten(2), nn.MaxPool1d(3, 2), nn.Flatten(), nn.LazyLinear(5),
]
network = nn.Sequential(*layers).eval()
images = 3 * torch.randn(1, 3, 22, 20)
network(images)
with torch.no_grad():
    network[-1].weight.normal_()
for layout in (torch.contiguous_format, torch.channels_last):
    given = images.to(memory_format=layout)
    targets = torch.tensor([[1, -1]])
    logits, pullback = explain(network, given, targets, "excitation")
    same_logits, fused = explain(network, given, targets, "excitation", kernels=True)
    parity = Parity.of(fused, pullback)
    assert parity.relative_l2 < 1e-5, parity
    assert (logits == same_logits).all()
"""


def test_the_reference_explains_the_same_with_the_kernels():
    done = subprocess.run(
        [sys.executable, "-c", NETWORK],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_tensors_on_the_cpu_are_refused_with_the_way_out():
    z = torch.zeros(2, 3)
    with pytest.raises(
        InputError, match=r"CUDA tensors, not on cpu; .*onnxplain\.bench\.reference"
    ):
        soft_gate(z, z, 0.3)
    with pytest.raises(InputError, match="CUDA tensors"):
        relu_soft_gate(z, 0.3)
    with pytest.raises(InputError, match="CUDA tensors"):
        soft_max_pool_grad(z, z, Pool.along([1], [1], [1], [0]), 0.3)


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="positive"):
        soft_gate(torch.zeros(2), torch.zeros(2), 0.0)


def test_methods_without_kernels_are_refused():
    network = torch.nn.Flatten().eval()
    with pytest.raises(InputError, match="not for guided"):
        explain(network, torch.zeros(1, 1, 2, 2), torch.tensor([0]), "guided", kernels=True)


def test_a_pool_along_three_axes_is_refused():
    with pytest.raises(InputError, match="not 3"):
        Pool.along([2] * 3, [2] * 3, [1] * 3, [0] * 3)
