"""Real networks on the browser's GPU: ONNX Runtime's WebGPU provider, on an adapter in software."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from selenium.webdriver.support.ui import WebDriverWait
from torch import nn

import onnxplain
from onnxplain.export.sources.source import torch_network

from .browser import chromium, served

pytestmark = [pytest.mark.sweep, pytest.mark.xdist_group("webgpu")]

SIZE, STEPS = 64, 3
PATIENCE = 1800
"""Seconds for one network: the adapter is the processor, and a busy one takes many minutes."""

NETWORKS = {
    "resnet18": "excitation",
    "vgg11_bn": "excitation",
    "squeezenet1_1": "excitation",
    "mobilenet_v2": "excitation",
    "efficientnet_b0": "semantic",
    "mobilenet_v3_small": "semantic",
    "shufflenet_v2_x0_5": "excitation",
    "convnext_tiny": "semantic",
}
"""Not DenseNet: its widest Concat takes more buffers than a shader may (onnxruntime-web 1.30)."""

RUN = """
const [steps, size] = arguments;
window.found = null;
(async () => {
  const said = [];
  for (const kind of ['log', 'info', 'warn', 'error', 'debug'])
    console[kind] = (...words) => said.push(words.join(' '));
  const ort = await import('/runtime/ort.webgpu.bundle.min.mjs');
  ort.env.wasm.wasmPaths = {wasm: '/runtime/ort-wasm-simd-threaded.asyncify.wasm'};
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'verbose';
  const image = () => new ort.Tensor(
    'float32', Float32Array.from({length: 3 * size * size}, (_, i) => Math.sin(i * i)),
    [1, 3, size, size]);
  const target = new ort.Tensor('int64', BigInt64Array.from([-1n]), [1]);
  const number = (x) => new ort.Tensor('float32', [x], []);
  const open = (name, provider, options) => ort.InferenceSession.create(
    `/${name}.onnx`, {executionProviders: [provider], logSeverityLevel: 0, ...options});
  const found = {};
  for (const provider of ['wasm', 'webgpu']) {
    const session = await open('explain', provider, {});
    if (provider === 'webgpu') found.said = said.splice(0); else said.length = 0;
    const {pullback} = await session.run({image: image(), target});
    found[provider] = Array.from(pullback.data);
    await session.release();
  }
  const there = {preferredOutputLocation: {next_image: 'gpu-buffer'}};
  const session = await open('step', 'webgpu', there);
  const others = {origin: image(), target};
  for (const [name, value] of [['alpha', 20], ['eps', 100], ['limit', 1]])
    others[name] = number(value);
  let now = image(), places = [];
  for (let i = 0; i < steps; i++) {
    now = (await session.run({image: now, ...others}, ['next_image'])).next_image;
    places.push(now.location);
  }
  found.stepped = Array.from(await now.getData());
  found.places = places;
  return found;
})().then((found) => { window.found = found; },
          (error) => { window.found = {problem: String(error)}; });
"""


@pytest.fixture(scope="module")
def site(need_chromium: None, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    shutil.copytree(runtime, folder / "runtime", copy_function=os.link)
    (folder / "index.html").write_text("<!doctype html><title>graphs</title>")
    return folder


@pytest.fixture(scope="module")
def browser(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    flags = ("enable-unsafe-webgpu", "use-webgpu-adapter=swiftshader")
    folder = tmp_path_factory.mktemp("chromium")
    with served(site) as address, chromium(folder, *flags) as driver:
        yield driver, address


def network(name: str) -> nn.Module:
    """Untrained. VGG's head is narrow: its own is 0.5 GB, which WASM has no memory for twice."""
    module: Any = torch_network(name, "none").module
    if name.startswith("vgg"):
        wide, *between = module.classifier[:3]
        module.classifier = nn.Sequential(
            nn.Linear(wide.in_features, 64), *between, nn.Linear(64, 10)
        )
    return cast(nn.Module, module)


def on_processor(said: list[str]) -> set[str]:
    """The nodes that a verbose log says are WASM's: "Operator (name)"."""
    found, inside = set(), False
    for line in said:
        if placed := re.search(r"placed on \[(\w+)\]", line):
            inside = placed[1] == "CPUExecutionProvider"
        elif inside and (node := re.search(r"IsAssignedToAnEp\] +(\w+ \(.*\))", line)):
            found.add(node[1])
    return found


def cosine(a: list[float], b: list[float]) -> float:
    x, y = np.array(a), np.array(b)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_on_the_browsers_gpu(name: str, site: Path, browser: Any) -> None:
    """All but the arithmetic of the class index, which arrives from the page; steps too."""
    driver, address = browser
    options: dict[str, Any] = {"method": NETWORKS[name], "size": (SIZE, SIZE)}
    onnxplain.export(network(name), site / "explain.onnx", **options)
    onnxplain.export(network(name), site / "step.onnx", step=True, **options)
    driver.get(address)
    driver.execute_script(RUN, STEPS, SIZE)
    found = WebDriverWait(driver, PATIENCE, 1).until(
        lambda driver: driver.execute_script("return window.found")
    )
    assert "problem" not in found, found
    placed = on_processor(found["said"])
    assert {node for node in placed if "pullback/target/" not in node} == set()
    assert cosine(found["webgpu"], found["wasm"]) >= 0.9999
    assert found["places"] == ["gpu-buffer"] * STEPS
    assert np.isfinite(found["stepped"]).all()
