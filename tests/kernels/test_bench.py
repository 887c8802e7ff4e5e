"""The bandwidth measurement, as far as it goes without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onnxplain.bench import kernels
from onnxplain.kernels.pool import Pool
from onnxplain.kernels.roofline import soft_gate_bytes, soft_max_pool_grad_bytes

from .interpreted import ROOT


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="no CUDA GPU here"):
        kernels.main([])


def test_interpreted_it_runs_to_its_end(tmp_path: Path):
    """The kernels agree with the plain formula, or it stops."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "onnxplain.bench.kernels", "--interpret", "--json", report]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(report.read_text())["kernels"]
    assert {row["dtype"] for row in rows} == {"float32", "float16", "bfloat16"}
    assert len(rows) == 15


def test_the_gate_reads_z_once_for_all_targets():
    assert soft_gate_bytes(1000, 4) == 12_000
    assert soft_gate_bytes(1000, 4, targets=3) == 28_000


def test_an_overlapping_pool_of_stride_one_stores_its_statistics_and_resnets_does_not():
    resnet = Pool((3, 3), (2, 2), (1, 1), (1, 1))
    inception = Pool((3, 3), (1, 1), (1, 1), (1, 1))
    assert not resnet.stores_statistics
    assert inception.stores_statistics
    assert soft_max_pool_grad_bytes(resnet, 1000, 250, 4) == 4 * (1000 + 250 + 1000)
    once_more, written_and_read = 4000, 2 * 8 * 1000
    assert (
        soft_max_pool_grad_bytes(inception, 1000, 1000, 4) == 12_000 + once_more + written_and_read
    )
