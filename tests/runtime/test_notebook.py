"""What a notebook shows of an explanation."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from onnxplain.runtime import Explanation, load


def pictures(html: str) -> list[Image.Image]:
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def random_explanation(images: int, targets: int | None = None, side: int = 32) -> Explanation:
    rng = np.random.default_rng(0)
    shape = (images,) if targets is None else (images, targets)
    return Explanation(
        logits=rng.normal(size=(images, 10)).astype(np.float32),
        pullback=rng.normal(size=(*shape, 3, side, side)).astype(np.float32),
        targets=rng.integers(0, 10, shape),
        photographs=rng.integers(0, 256, (images, side, side, 3), np.uint8),
        class_names=(),
    )


def test_html_has_pictures_and_the_likeliest_classes(explainer, x):
    explanation = explainer(x, [4, 1, 0])
    html = explanation._repr_html_()
    assert html.count("<tr>") == 1 + 3
    assert len(pictures(html)) == 3 * 3
    for ranked in explanation.labels():
        for name, probability in ranked:
            assert f"{probability:.1%} {name}" in html
    for name in explanation.names:
        assert f'alt="pullback for {name}"' in html
    assert "not shown" not in html


def test_several_targets_stand_beside_each_other(graph_file, x):
    html = load(graph_file(multi_target=True))(x, [[4, 0], [1, 2], [0, 3]])._repr_html_()
    assert html.count("<th>pullback</th><th>heatmap</th>") == 2
    assert len(pictures(html)) == 3 * 5


def test_class_names_are_escaped(graph_file, x):
    html = load(graph_file(labels=("<script>",) * 5))(x)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("shape", "shown", "said"),
    [
        ((8,), 8 * 3, ""),
        ((20,), 8 * 3, "12 more images not shown"),
        ((2, 5), 2 * 7, "2 more targets not shown"),
        ((9, 4), 8 * 7, "1 more image and 1 more target not shown"),
    ],
)
def test_large_batches_are_cut_and_it_says_so(shape, shown, said):
    html = random_explanation(*shape)._repr_html_()
    assert len(pictures(html)) == shown
    assert re.findall(r"<p>(.*)</p>", html) == [said] * bool(said)


def test_large_pictures_are_made_smaller():
    html = random_explanation(9, 4, side=300)._repr_html_()  # more of both than it shows
    assert {picture.size for picture in pictures(html)} == {(224, 224)}
    assert len(html) < 12e6


def test_a_pullback_that_changes_from_pixel_to_pixel_is_shown():
    html = random_explanation(1, side=224)._repr_html_()
    assert {picture.size for picture in pictures(html)} == {(224, 224)}


def test_png_is_the_grid(explainer, x, tmp_path):
    explanation = explainer(x)
    explanation.save(tmp_path / "grid.png", "grid")
    with Image.open(io.BytesIO(explanation._repr_png_())) as shown:
        assert shown.format == "PNG"
        np.testing.assert_array_equal(shown, Image.open(tmp_path / "grid.png"))


def test_png_is_bounded():
    few = Image.open(io.BytesIO(random_explanation(8, 3)._repr_png_()))
    many = Image.open(io.BytesIO(random_explanation(30, 9)._repr_png_()))
    assert many.size == few.size
