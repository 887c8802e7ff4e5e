"""Writing the site: whole or not at all, and errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxplain.contract.estimator import Estimated, EstimatorInput
from onnxplain.contract.explain import RELEVANCE
from onnxplain.contract.objective import Explained, ObjectiveInput
from onnxplain.contract.values import ExplainedValue, Values
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.sessions import open_backend
from onnxplain.web import STAGES, write_site
from onnxplain.web.site import _named_by as named_by

from ..runtime.conftest import explain_graph
from .conftest import STATIC


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(explain_graph(live_temperature=True), path)
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test puts its own npm; there is no other, and nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin" / "npm"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def assert_nothing_written(folder: Path) -> None:
    assert [path for path in folder.iterdir() if "site" in path.name] == []


def test_the_site_has_all_that_the_page_needs(graph: Path, runtime: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    site = tmp_path / "new" / "site"
    write_site(graph, site)
    write_site(graph, site, stages.append)  # once more over its own
    assert tuple(stages) == STAGES
    assert (site / "model.onnx").read_bytes() == graph.read_bytes()
    assert {path.name for path in STATIC.iterdir()} < {path.name for path in site.iterdir()}
    description = json.loads((site / "model.json").read_text())
    assert description["labels"][1] == "Egyptian cat"
    assert description["live_temperature"] is True
    downloads = [graph.rename(tmp_path / "model.onnx"), *(site / "ort").iterdir()]
    assert description["bytes"] == {path.name: path.stat().st_size for path in downloads}
    assert list(site.parent.iterdir()) == [site]


def test_several_graphs_and_photographs_are_a_menu(
    graph: Path, unpacked: None, tmp_path: Path, photographs: dict[str, np.ndarray]
) -> None:
    other, cat = tmp_path / "other.onnx", tmp_path / "Die Katze.PNG"
    onnx.save(explain_graph(labels=()), other)
    Image.fromarray(photographs["chelsea"]).save(cat)
    site = tmp_path / "site"
    write_site([graph, other], site, photographs=[cat])
    first, second = (json.loads((site / f"{n}.json").read_text()) for n in ("model", "model-2"))
    assert [each["description"] for each in first["networks"]] == ["model.json", "model-2.json"]
    assert (first["graph"], second["graph"]) == ("model.onnx", "model-2.onnx")
    assert (site / second["graph"]).read_bytes() == other.read_bytes()
    assert second["bytes"]["model-2.onnx"] == other.stat().st_size
    assert (first["labels"][1], second["labels"]) == ("Egyptian cat", [])
    assert len({each["name"] for each in first["networks"]}) == 2  # of one network and method
    assert first["photographs"] == ["photographs/1-die-katze.png"]
    assert (site / "photographs/1-die-katze.png").read_bytes() == cat.read_bytes()
    write_site(graph, site)
    assert not {"model-2.onnx", "model-2.json"} & {file.name for file in site.iterdir()}
    assert not list((site / "photographs").iterdir())


def test_what_the_menu_cannot_offer_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no explain graph given"):
        write_site([], tmp_path / "site")
    with pytest.raises(InputError, match="not an image"):
        write_site(graph, tmp_path / "site", photographs=[graph])
    assert_nothing_written(tmp_path)


def test_a_graph_with_its_own_step_is_refused(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    step = onnx.helper.make_tensor_value_info("next_image", onnx.TensorProto.FLOAT, None)
    model.graph.node.append(onnx.helper.make_node("Identity", ["image"], ["next_image"]))
    model.graph.output.append(step)
    onnx.save(model, graph)
    with pytest.raises(BackendError, match="without"):
        write_site(graph, tmp_path / "site")
    assert_nothing_written(tmp_path)


def test_what_the_page_has_no_place_for_is_refused(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = open_backend(graph).signature
    pre = replace(signature.metadata.preprocessing, mean=(0.5,) * 4, std=(0.5,) * 4)
    for sentence, change in {
        "gives one photograph, and .* takes baseline besides": {
            "estimator": Estimated("noisy", inputs={"baseline": EstimatorInput("where it begins")})
        },
        "takes images of 4 channels, which no photograph has": {"preprocessing": pre},
        "the page explains images, and this file explains": {
            "values": Values(explained={"row": ExplainedValue("table", "pullback")})
        },
        "climbs along the pullback, and .* gives relevances, .* export with another method": {
            "kind": RELEVANCE,
            "objective": Explained(inputs={"concepts": ObjectiveInput("channels", (8,), 1.0)}),
        },
    }.items():
        other = replace(signature, metadata=replace(signature.metadata, **change))
        opened = SimpleNamespace(signature=other)
        monkeypatch.setattr("onnxplain.web.site.open_backend", lambda model, to=opened: to)
        with pytest.raises(BackendError, match=sentence):
            write_site(graph, tmp_path / "site")
    assert_nothing_written(tmp_path)


def test_what_others_put_into_a_site_stays(graph: Path, unpacked: None, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_site(graph, site)
    (site / "CNAME").write_text("example.org")
    (site / "main.js").write_text("older")
    write_site(graph, site)
    assert (site / "CNAME").read_text() == "example.org"
    assert (site / "main.js").read_text() == (STATIC / "main.js").read_text()


def test_another_onnx_file_is_refused(tmp_path: Path) -> None:
    model = explain_graph()
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(BackendError, match="not an explain graph"):
        write_site(tmp_path / "plain.onnx", tmp_path / "site")
    assert_nothing_written(tmp_path)


def test_what_a_browser_cannot_run_is_refused(tmp_path: Path) -> None:
    onnx.save(explain_graph(dtype=np.float64), tmp_path / "double.onnx")
    with pytest.raises(BackendError, match="float32"):
        write_site(tmp_path / "double.onnx", tmp_path / "site")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("notes.txt", "[]"), ("model.json", "[]"), ("model.json", '["onnxplain"]')),
        pytest.param("model.json", 100_000 * "[", id="too deep"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(
    graph: Path, tmp_path: Path, name: str, text: str
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / name).write_text(text)
    with pytest.raises(InputError, match="name a new folder"):
        write_site(graph, folder)
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_is_no_folder(graph: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        write_site(graph, graph)


def test_a_folder_that_cannot_be_written_is_a_sentence(graph: Path) -> None:
    with pytest.raises(InputError, match="cannot write the site"):
        write_site(graph, graph / "site")


def test_without_npm_it_says_what_to_install(graph: Path, tmp_path: Path, npm: Path) -> None:
    with pytest.raises(BackendError, match=r"there is no npm here; install Node\.js"):
        write_site(graph, tmp_path / "site")
    assert_nothing_written(tmp_path)


def test_npms_own_reason_is_passed_on(graph: Path, tmp_path: Path, npm: Path) -> None:
    script(npm, "echo 'npm error network is unreachable' >&2; exit 1")
    with pytest.raises(BackendError, match="network is unreachable; with a connection"):
        write_site(graph, tmp_path / "site")
    assert_nothing_written(tmp_path)


def test_another_package_is_not_trusted(graph: Path, tmp_path: Path, npm: Path) -> None:
    script(npm, "echo something else > onnxruntime-web-0.tgz")
    with pytest.raises(BackendError, match="as published"):
        write_site(graph, tmp_path / "site")
    assert_nothing_written(tmp_path)
    assert list((tmp_path / "cache" / "onnxplain").iterdir()) == []


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_it_leaves_nothing(
    graph: Path, unpacked: None, tmp_path: Path, stage: str
) -> None:
    def interrupt(begun: str) -> None:
        if begun == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_site(graph, tmp_path / "site", interrupt)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize("networks", ["[1]", "1", '[{"description": 2}]', '[{"description": ""}]'])
def test_a_site_that_says_nonsense_of_its_files_loses_none(networks: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(f'{{"onnxplain": "1.0", "networks": {networks}}}')
    assert named_by(tmp_path) == set()
