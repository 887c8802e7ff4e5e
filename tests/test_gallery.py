"""`onnxplain gallery`: photographs by networks by methods, on one page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import InputError, SourceError
from onnxplain.gallery import write_gallery
from onnxplain.runtime.pictures.render import signed_image

from .test_front_doors import SIZE, small


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of one name, what is none, a network and an explain graph of another."""
    place = tmp_path_factory.mktemp("gallery")
    for i, folder in enumerate(("a", "b")):
        (place / "photos" / folder).mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(place / "photos" / folder / "<cat>.png")
    (place / "photos" / "no.jpg").write_text("no picture")
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch.onnx.export(small(), (example,), place / "net.onnx", dynamo=False)
    onnxplain.export(
        small(), place / "e.explain.onnx", size=SIZE, labels=[*"pqrst"], method="semantic"
    )
    return place


def test_a_page_has_each_photograph_by_each_network_and_method(place: Path) -> None:
    path = place / "g.html"
    methods = ["-m", "gradient", "-m", "grad-cam", "-m", "attention-rollout"]
    networks = ["-n", str(place / "net.onnx"), "-n", str(place / "e.explain.onnx")]
    done = CliRunner().invoke(
        app, ["gallery", str(place / "photos"), *networks, *methods, "-o", str(path)]
    )
    assert done.exit_code == 1, done.output  # for the file that is no picture
    assert "no.jpg" in done.output
    assert "2 of 3 images" in " ".join(done.output.split())
    text = path.read_text()
    assert "http" not in text.replace("http-equiv", "")  # it asks the network for nothing
    articles = re.findall(r"<article.*?</article>", text, flags=re.DOTALL)
    assert len(articles) == 3
    assert "is not an image" in articles[2]
    explain = onnxplain.load(place / "e.explain.onnx")
    for article, folder in zip(articles, ("a", "b"), strict=False):
        assert f"{folder}/&lt;cat&gt;.png" in article  # both are called so
        first, second = re.findall(r"<section>.*?</section>", article, flags=re.DOTALL)
        captions = re.findall(r"<figcaption><b data-find>(.*?)</b>(.*?)</figcaption>", first)
        assert [name for name, _ in captions] == ["gradient", "grad-cam", "attention-rollout"]
        assert [said for _, said in captions[:2]] == ["a colour: more of it here", "bright: here"]
        assert "the network has none" in captions[2][1]
        assert len(re.findall("<img", first)) == 2
        predicted = explain(place / "photos" / folder / "<cat>.png").labels(1)[0][0]
        assert f"<span>{predicted[0]} {predicted[1]:.1%}</span>" in second
        assert "semantic, temperature 1" in second


def test_all_methods_explain_what_the_first_one_does(place: Path) -> None:
    """The picture is that of the method alone, for the class that is predicted."""
    path, image = place / "one.html", place / "photos" / "a" / "<cat>.png"
    write_gallery([place / "net.onnx"], [image], path, methods=["gradient", "guided"])
    onnxplain.export(place / "net.onnx", place / "guided.onnx", method="guided")
    explainer = onnxplain.load(place / "guided.onnx")
    expected = np.asarray(signed_image(explainer(image).pullback[0]), np.float32)
    uri = re.findall(r'src="data:image/jpeg;base64,(.*?)"', path.read_text())[2]
    drawn = Image.open(io.BytesIO(base64.b64decode(uri))).resize((SIZE, SIZE), Image.Resampling.BOX)
    assert np.abs(np.asarray(drawn, np.float32) - expected).mean() < 2  # of a JPEG


def test_a_network_that_no_method_is_for_is_an_error(place: Path) -> None:
    path, images = place / "none.html", [place / "photos" / "a" / "<cat>.png"]
    with pytest.raises(SourceError, match="the network has none"):
        write_gallery([place / "net.onnx"], images, path, methods=["attention-rollout"])
    with pytest.raises(SourceError, match="no method 'cow'"):
        write_gallery([place / "net.onnx"], images, path, methods=["cow"])
    with pytest.raises(InputError, match="a network, an image and a method at least"):
        write_gallery([], images, path)
    assert not path.exists()
