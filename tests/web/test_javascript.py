"""The page's arithmetic against the Python runtime's, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime.inputs.batches import box_in_input, box_in_photograph, preprocess
from onnxplain.runtime.pictures.render import heatmap, signed_image

from .conftest import STATIC

Node = Callable[..., np.ndarray]

ARRAYS = {np.dtype(np.uint8): "Uint8ClampedArray", np.dtype(np.float32): "Float32Array"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Evaluates JavaScript that knows `input`, an array, and `options`; gives an array back."""
    if shutil.which("node") is None:
        pytest.skip("no node here; on Debian: apt-get install nodejs")
    modules = tmp_path / "modules"
    shutil.copytree(STATIC, modules)
    (modules / "package.json").write_text('{"type": "module"}')

    def run(
        imports: str, expression: str, array: np.ndarray, dtype: type, **options: object
    ) -> np.ndarray:
        (tmp_path / "input").write_bytes(array.tobytes())
        (modules / "script.js").write_text(
            f"""
            import {{ readFileSync, writeFileSync }} from 'node:fs';
            {imports}
            const bytes = Uint8Array.from(readFileSync('../input'));
            const input = new {ARRAYS[array.dtype]}(bytes.buffer);
            const options = {json.dumps(options)};
            writeFileSync('../output', {expression});
            """
        )
        subprocess.run(["node", "script.js"], cwd=modules, check=True)
        return np.frombuffer((tmp_path / "output").read_bytes(), dtype)

    return run


def preprocessed(node: Node, pixels: np.ndarray, pre: Preprocessing) -> np.ndarray:
    height, width, _ = pixels.shape
    return node(
        """
        import { crop, normalise } from './preprocess.js';
        const rows = (top, count) =>
          input.subarray(4 * options.width * top, 4 * options.width * (top + count));
        """,
        "normalise(crop({ ...options, rows }, options.pre), options.pre)",
        np.dstack([pixels, np.full((height, width), 255, np.uint8)]),
        np.float32,
        width=width,
        height=height,
        pre=vars(pre),
    ).reshape(len(pre.mean), pre.height, pre.width)


@pytest.mark.parametrize(
    "interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
)
@pytest.mark.parametrize(
    ("width", "height"), [(451, 300), (300, 451), (64, 64), (17, 23), (1600, 31)]
)
def test_preprocessing_is_pythons_bit_for_bit(
    node: Node, width: int, height: int, interpolation: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pre = Preprocessing(height=56, width=61, resize=64, interpolation=interpolation)
    expected = preprocess(Image.fromarray(pixels), pre)
    np.testing.assert_array_equal(preprocessed(node, pixels, pre), expected)


@pytest.mark.parametrize(
    "fit", [{"fit": "squash"}, {"fit": "letterbox", "fill": 114}, {"half": "down"}]
)
@pytest.mark.parametrize(("width", "height"), [(451, 300), (75, 400), (61, 122), (9, 2)])
def test_a_photograph_is_fitted_as_in_python(
    node: Node, width: int, height: int, fit: dict[str, Any]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pre = Preprocessing(height=56, width=61, resize=64, **fit)
    expected = preprocess(Image.fromarray(pixels), pre)
    found = preprocessed(node, pixels, pre)
    assert np.abs(found - expected).max() <= 1.01 / 255 / min(pre.std)


def test_a_tall_photograph_differs_by_one_rounding_at_most(node: Node) -> None:
    """Which axis comes first depends on Pillow's version; it takes more than one strip of rows."""
    pixels = np.random.default_rng(0).integers(0, 256, (900, 300, 3), np.uint8)
    pre = Preprocessing(height=56, width=61, resize=64)
    expected = preprocess(Image.fromarray(pixels), pre)
    found = preprocessed(node, pixels, pre)
    assert np.abs(found - expected).max() <= 1.01 / 255 / min(pre.std)


def test_one_channel_is_the_luminance_and_what_is_missing_is_black(node: Node) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    pre = Preprocessing(height=49, width=32, resize=32, mean=(0.4,), std=(0.3,))
    expected = preprocess(Image.fromarray(pixels), pre)
    np.testing.assert_array_equal(preprocessed(node, pixels, pre), expected)


@pytest.mark.parametrize("size", [(40, 56), (700, 640)])
def test_pictures_are_the_runtimes(node: Node, size: tuple[int, int]) -> None:
    """The larger one's white point is that of every other row and column."""
    pullback = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    imports = "import * as render from './render.js';"
    heat = node(imports, f"render.heatmap(input, 3, {size[1]})", pullback, np.float64)
    np.testing.assert_allclose(heat.reshape(size), heatmap(pullback), atol=1e-5)
    drawn = node(imports, f"render.signedImage(input, 3, {size[1]})", pullback, np.uint8)
    expected = np.asarray(signed_image(pullback)).astype(int)
    np.testing.assert_allclose(drawn.reshape(*size, 4)[..., :3], expected, atol=1)


def test_a_pullback_of_zeros_is_grey_cold_and_leads_nowhere(node: Node) -> None:
    zeros = np.zeros((3, 4, 5), np.float32)
    imports = "import * as render from './render.js'; import { ascend } from './ascent.js';"
    grey = node(imports, "render.signedImage(input, 3, 5)", zeros, np.uint8)
    assert (grey.reshape(-1, 4) == [128, 128, 128, 255]).all()
    assert not node(imports, "render.heatmap(input, 3, 5)", zeros, np.float64).any()
    pre = vars(Preprocessing(height=4, width=5, resize=4))
    reached = node(imports, "ascend(input, input, input, options.pre)", zeros, np.float32, pre=pre)
    assert not reached.any()


def test_logits_become_a_ranking(node: Node) -> None:
    logits = np.array([1, 900, 3, 900, 2], np.float32)  # a tie, and too high for exp
    imports = "import { ranking, softmax } from './ranking.js';"
    probabilities = node(imports, "softmax(input)", logits, np.float64)
    np.testing.assert_allclose(probabilities, [0, 0.5, 0, 0.5, 0])
    order = node(imports, "Int32Array.from(ranking(softmax(input)))", logits, np.int32)
    assert order[:2].tolist() == [1, 3]


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (40, 64)])
def test_boxes_lie_where_python_puts_them(node: Node, size: tuple[int, int]) -> None:
    pre = Preprocessing(height=56, width=61, resize=64)
    box = np.array([0.3, 0.3, 0.6, 0.7], np.float32) * np.tile(size, 2).astype(np.float32)
    imports = "import { toInput, toPhotograph } from './boxes.js';"
    given = {"pre": vars(pre), "size": {"width": size[0], "height": size[1]}}
    for name, expected in {
        "toInput": box_in_input(box, size, pre),
        "toPhotograph": box_in_photograph(box, size, pre),
    }.items():
        found = f"Float64Array.from({name}(Array.from(input), options.size, options.pre))"
        np.testing.assert_allclose(node(imports, found, box, np.float64, **given), expected)


FIELDS = """
globalThis.window = {};
const { take } = await import('./fields.js');
const { state } = await import('./state.js');
const box = { kind: 'box', shape: [4], default: 0, meaning: 'where' };
const query = { kind: 'numbers', shape: [2], default: null, meaning: 'to what' };
state.model = { objective: { inputs: { box, query } }, preprocessing: PRE };
state.photograph = { size: { width: 64, height: 64 } };
const typed = { dataset: { input: 'box', rectangle: 'box' }, value: '1, 2, 3, 4' };
const chosen = { dataset: { input: 'query' }, files: [] };
const file = (text, ready = null) => ({
  name: 'q.json',
  text: async () => {
    await ready;
    return text;
  },
});
const refused = (control) => take(control).then(() => 0, () => 1);
const found = [];
"""


def of_fields(node: Node, script: str) -> list[float]:
    """What a script finds that gives fields something."""
    pre = json.dumps(vars(Preprocessing(height=64, width=64, resize=64)))
    none = np.zeros(1, np.float32)
    script = f"const PRE = {pre};{FIELDS}{script}"
    return node(script, "Float64Array.from(found)", none, np.float64).tolist()


def test_a_rectangle_that_cannot_be_used_leaves_the_one_before(node: Node) -> None:
    script = """
    await take(typed);
    for (const wrong of ['1,,3,4', '1, 2, 3', '1, 2, 300, 4', '1, 2, x, 4']) {
      typed.value = wrong;
      found.push(await refused(typed));
    }
    found.push(...state.inputs.box, ...state.boxes.box);
    typed.value = ' ';
    await take(typed);
    found.push(Object.keys(state.inputs).length, Object.keys(state.boxes).length);
    """
    assert of_fields(node, script) == [1] * 4 + [1, 2, 3, 4] * 2 + [0, 0]


def test_a_file_chooser_that_is_emptied_gives_nothing(node: Node) -> None:
    script = """
    chosen.files = [file('[1, 2]')];
    await take(chosen);
    found.push(...state.inputs.query);
    chosen.files = [];
    found.push(await refused(chosen), Object.keys(state.inputs).length);
    """
    assert of_fields(node, script) == [1, 2, 0, 0]


@pytest.mark.parametrize("first", ["[1, 2]", "no JSON"])
def test_of_two_files_the_one_given_last_counts(node: Node, first: str) -> None:
    """Although it is read first; nor does an error of the other show."""
    script = f"""
    let release;
    const ready = new Promise((resolve) => (release = resolve));
    chosen.files = [file('{first}', ready)];
    const slow = take(chosen);
    chosen.files = [file('[3, 4]')];
    found.push(Number(await take(chosen)));
    release();
    found.push(Number(await slow), ...state.inputs.query);
    """
    assert of_fields(node, script) == [1, 0, 3, 4]


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([0, 0, 32, 64], slice(0, 4), slice(0, 4)),
        ([7, 20, 25, 44], slice(1, 3), slice(1, 3)),
        ([33, 1, 34, 2], slice(0, 1), slice(4, 5)),
        ([63, 63, 64, 64], slice(3, 4), slice(7, 8)),
    ],
)
def test_a_rectangle_is_the_places_whose_middle_it_has(
    node: Node, box: list[int], rows: slice, columns: slice
) -> None:
    expected = np.zeros((4, 8))
    expected[rows, columns] = 1
    found = node(
        "import { toRegion } from './boxes.js';",
        "toRegion(Array.from(input), [4, 8], options.pre)",
        np.array(box, np.float32),
        np.float32,
        pre=vars(Preprocessing(height=64, width=64, resize=64)),
    )
    np.testing.assert_array_equal(found.reshape(4, 8), expected)
