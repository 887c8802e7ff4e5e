"""What OpenAPI says is what the service does: schemathesis asks whatever that allows, and more."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from onnxplain.contract.picture import PictureOptions
from onnxplain.options import declared

from .process import Process, started


def schemathesis(process: Process, folder: Path, *options: str) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", Path(__file__).with_suffix("").parent / "schemathesis.toml"),
        *("run", f"{process.url}/openapi.json", "--no-color"),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert process.healthy()


def test_a_few_requests_of_each_kind_find_nothing(graphs, tmp_path) -> None:
    with started([graphs["tiny"], graphs["live"]]) as process:
        few = ("--phases", "examples,fuzzing", "--max-examples", "5", "--seed", "1")
        schemathesis(process, tmp_path, *few, "--generation-database", "none")


@pytest.mark.sweep
def test_many_requests_find_nothing(graphs, tmp_path) -> None:
    with started([graphs["tiny"], graphs["live"]]) as process:
        schemathesis(process, tmp_path, "--max-examples", "1000", "--generation-database", "none")


def test_the_examples_are_explained(client) -> None:
    schema = client.get("/openapi.json").json()
    explain = schema["paths"]["/v1/models/{name}:explain"]["post"]
    examples = explain["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) >= 2
    for example in examples.values():
        response = client.post("/v1/models/tiny:explain", json=example["value"])
        assert response.status_code == 200, response.text
        image = Image.open(io.BytesIO(base64.b64decode(example["value"]["image"])))
        assert image.size == (1, 1)


def test_it_names_every_way_to_ask_and_to_be_answered(client, graphs) -> None:
    schema = client.get("/openapi.json").json()
    explain = schema["paths"]["/v1/models/{name}:explain"]["post"]
    assert set(explain["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
        "application/octet-stream",
    }
    assert set(explain["responses"]["200"]["content"]) == {
        "application/json",
        "image/png",
        "application/x-npz",
    }
    assert {"400", "404", "408", "413", "415", "422", "503"} < set(explain["responses"])
    assert "Retry-After" in explain["responses"]["503"]["headers"]
    (name,) = [p for p in explain["parameters"] if p["name"] == "name"]
    assert set(name["schema"]["enum"]) == set(graphs)
    assert {p["name"] for p in explain["parameters"]} == {
        *("name", "targets", "top_k", "temperature", "output"),
        *("width", "height", "pixels"),
        *declared(PictureOptions),
    }
