"""What the Dockerfile installs, in an empty environment: it serves, and has no torch.

There is no container engine in a test; the same requirements go into a new virtual environment,
and the same entry point is started with nothing else of this machine's Python.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.serve.packages.oci import write_context

from .process import started


@pytest.mark.sweep
def test_the_containers_packages_install_in_an_empty_environment_and_serve(
    lite0: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    image, environment = tmp_path / "image", tmp_path / "environment"
    write_context(lite0, image, "lite0")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-r", image / "requirements.txt"]
    subprocess.run(install, check=True)
    installed = subprocess.run(
        [python, "-m", "pip", "list"], check=True, capture_output=True, text=True
    ).stdout
    assert not re.search(r"^(torch|onnxruntime-gpu|onnxplain) ", installed, re.MULTILINE)

    (entry,) = re.findall(r"ENTRYPOINT (.*)", (image / "Dockerfile").read_text())
    command = [part.replace("/models/", f"{image}/models/") for part in json.loads(entry)]
    only = {"PYTHONPATH": str(image / "app"), "PATH": os.defpath, "XDG_CACHE_HOME": str(tmp_path)}
    with started([], command=[str(python), *command[1:]], env=only, cwd=tmp_path) as process:
        url = process.url.replace("0.0.0.0", "127.0.0.1")
        encoded = io.BytesIO()
        Image.fromarray(photographs["coffee"]).save(encoded, "PNG")
        response = httpx.post(
            f"{url}/v1/models/lite0:explain",
            files={"image": encoded.getvalue()},
            data={"output": "npz"},
            timeout=60,
        )
        assert response.status_code == 200, response.text
        with np.load(io.BytesIO(response.content)) as answer:
            expected = onnxplain.load(lite0, "cpu")(photographs["coffee"])
            np.testing.assert_allclose(answer["logits"], expected.logits[0], atol=1e-4)
            np.testing.assert_allclose(answer["pullback"], expected.pullback, atol=1e-5)
        explained = httpx.post(
            f"{url}/v1/models/lite0:explain",
            files={"image": encoded.getvalue()},
            data={"output": "png"},
            timeout=60,
        )
        assert Image.open(io.BytesIO(explained.content)).size == (224, 224)
