"""Every provider and precision of this machine, against the PyTorch reference in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from onnxplain.bench import precision
from onnxplain.runtime import load
from onnxplain.runtime.sessions import PROVIDERS, usable
from onnxplain.runtime.verification import least_agreement, least_cosine, samples

RESULTS = Path(precision.__file__).parent / "results" / "precision.json"
HERE = [(name, p) for name in PROVIDERS for p in usable(name) if p != "int8"]


@pytest.mark.parametrize(("provider", "kind"), HERE)
def test_a_trained_network_is_right_on_photographs(lite0, photographs, provider, kind):
    """Against ONNX Runtime's float32, which test_networks.py holds against the reference."""
    right = load(lite0, "cpu", threads=1)
    images = samples(right, [photographs[name] for name in ("chelsea", "rocket")])
    found = least_agreement(load(lite0, provider, kind, threads=1), right, images)
    assert found.cosine >= (0.99999 if kind == "float32" else least_cosine(kind))


def test_the_committed_table_has_all_networks_and_is_within_the_bounds():
    records = json.loads(RESULTS.read_text())["records"]
    assert {record["network"] for record in records} == set(precision.NETWORKS)
    assert [record for record in records if not precision.right(record)] == []
    for network in precision.NETWORKS:
        found = {(r["provider"], r["precision"]) for r in records if r["network"] == network}
        assert found >= {("cpu", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")}


def test_a_record_is_held_to_the_bound_of_its_precision():
    record = {"precision": "float32", "trained": False, "logits cosine": 1.0}
    assert precision.right(record | {"pullback cosine": 0.999991})
    assert not precision.right(record | {"pullback cosine": 0.99998})
    half = record | {"precision": "bfloat16", "pullback cosine": 0.98}
    assert precision.right(half)
    assert not precision.right(half | {"trained": True})
    assert not precision.right(record | {"pullback cosine": np.nan})


@pytest.mark.sweep
@pytest.mark.parametrize("network", precision.NETWORKS)
def test_every_network_is_within_the_bounds(network, tmp_path):
    photographs = [Image.fromarray(getattr(skimage.data, n)()) for n in precision.PHOTOGRAPHS]
    records = list(precision.measure(network, tmp_path, photographs))
    assert [record for record in records if not precision.right(record)] == []
