"""What a browser sees at `/`."""

from __future__ import annotations

import sys

import pytest

from onnxplain.errors import InputError
from onnxplain.serve.settings import Settings
from onnxplain.web import onnxruntime_web


@pytest.fixture
def no_browser_runtime(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_without_the_page_it_is_the_documentation(no_browser_runtime, serve):
    client = serve()
    response = client.get("/", follow_redirects=False)
    assert response.headers["location"] == "/docs"
    assert "swagger" in client.get("/docs").text
    assert client.get("/nothing").status_code == 404
    assert client.post("/nothing").status_code == 404


def test_a_site_that_was_written_is_shown(serve, tmp_path):
    (tmp_path / "index.html").write_text("the page")
    client = serve(site=tmp_path)
    assert client.get("/").text == "the page"
    assert client.get("/index.html").text == "the page"
    assert client.get("/nothing.html").status_code == 404
    assert client.get("/..%2f..%2fetc/passwd").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}


def test_where_it_is_installed_the_page_of_the_first_model_is_shown(serve, monkeypatch):
    def copy(folder):
        folder.mkdir()
        (folder / "ort.mjs").write_text("")
        return [folder / "ort.mjs"]

    monkeypatch.setattr(onnxruntime_web, "installed", lambda: True)
    monkeypatch.setattr("onnxplain.web.site.copy_runtime", copy)
    client = serve()
    assert "What does the network see?" in client.get("/").text
    assert client.get("/model.json").json()["classes"] == 5
    assert client.get("/model.onnx").status_code == 200


def test_with_a_token_no_page_brings_the_model_along(serve, monkeypatch):
    monkeypatch.setattr(onnxruntime_web, "installed", lambda: True)
    client = serve(token="secret")
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"
    assert client.get("/model.onnx").status_code == 404


def test_a_site_with_a_token_is_refused_for_it_brings_the_model_along(tmp_path):
    with pytest.raises(InputError, match="site="):
        Settings({}, token="secret", site=tmp_path)


def test_a_container_has_no_page_and_says_so_by_the_documentation(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxplain.web", None)
    client = serve()
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"
