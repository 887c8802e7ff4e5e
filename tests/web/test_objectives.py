"""The page with what is no classifier: it agrees with the Python runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

from onnxplain.runtime import Explainer, accentuate
from onnxplain.runtime.inputs.batches import box_in_input
from onnxplain.web import write_site

from ..objectives.kinds import BOX, PHOTOGRAPH, QUERY
from ..objectives.networks import exported, vector
from ..objectives.test_sequences import network as recogniser
from .browser import Page, served
from .test_page import AGREEMENT, cosine, pullback

pytestmark = pytest.mark.xdist_group("page")


@pytest.fixture(scope="module")
def explainers(kinds: dict[str, Explainer]) -> dict[str, Explainer]:
    return {
        **kinds,
        "numbers": exported(vector(4), objective="value"),
        "text": exported(recogniser(), objective="sequence"),
    }


@pytest.fixture(scope="module")
def address(
    explainers: dict[str, Explainer], runtime: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Of a site whose menu has them all."""
    site = tmp_path_factory.mktemp("objectives") / "site"
    write_site([one.path for one in explainers.values() if one.path], site)
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photograph") / "photograph.png"
    Image.fromarray(PHOTOGRAPH).save(path)
    return path


@pytest.fixture
def opened(driver: Any, address: str, explainers: dict[str, Explainer]) -> Any:
    """Opens the page with a network."""

    def open(kind: str) -> Page:
        page = Page(driver, address, reuse=True)
        page.until_loaded()
        page.find(f"#networks option:nth-child({list(explainers).index(kind) + 1})").click()
        chosen = "document.getElementById('networks').value"
        page.until_true(f"s.device && s.model.graph === {chosen}.replace('.json', '.onnx')")
        return page

    return open


def give(page: Page, name: str, value: Any) -> None:
    """Fill in a field, and wait for what follows."""
    field = page.find(f"[data-input={name}]")
    page.script("window.before = onnxplain.slots[0].explanation; error.hidden = true")
    if name == "target":
        Select(field).select_by_value(str(value))
    elif field.get_attribute("type") == "file":
        field.send_keys(str(value))
    else:
        page.script(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
            field,
            str(value),
        )
    page.until_true("s.slots[0].explanation !== window.before || !error.hidden")


def refused(page: Page, name: str, value: Any) -> str:
    give(page, name, value)
    return page.find("#error").text


def assert_agrees(page: Page, expected: Any) -> None:
    """The number, the name and the pullback."""
    page.until_explained()
    found = page.script("return onnxplain.slots[0].explanation.score")
    assert found == pytest.approx(float(expected.objective[0]), rel=1e-4, abs=1e-6)
    assert cosine(pullback(page), expected.pullback) >= AGREEMENT
    shown = page.find(".explanation .percent").text
    assert float(shown) == pytest.approx(found, rel=1e-3)
    assert page.errors() == []


def test_an_object_and_the_one_in_a_box(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("detector"), explainers["detector"]
    page.choose(photograph)
    assert_agrees(page, explainer(photograph))
    assert page.find("#found").text.startswith(page.find(".explanation .name").text)
    give(page, "target", -2)
    assert_agrees(page, explainer(photograph, -2))
    give(page, "target", 1)
    assert_agrees(page, explainer(photograph, 1))
    assert page.find(".explanation .name").text == "class 1"
    give(page, "target", -1)
    give(page, "box", ", ".join(map(str, BOX)))
    size, pre = Image.open(photograph).size, explainer.metadata.preprocessing
    box = box_in_input(np.array(BOX), size, pre)
    assert_agrees(page, explainer(photograph, box=box))
    assert page.find("#found").text.endswith(f"at {', '.join(map(str, BOX))}")
    left, top, _, bottom = np.rint(box).astype(int)
    drawn = page.picture("#photograph").reshape(pre.height, pre.width, 4)[..., :3]
    assert (drawn[top + 3 : bottom - 3, left - 1 : left + 1].min(axis=-1).max(axis=1) > 180).all()


def test_a_box_is_drawn_with_the_pointer(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("detector"), explainers["detector"]
    page.choose(photograph)
    canvas = page.find("#photograph")
    side = canvas.size["width"]
    before = page.script("window.before = onnxplain.slots[0].explanation")
    assert before is None
    drag = ActionChains(page.driver).move_to_element_with_offset(canvas, -side // 4, -side // 4)
    drag.click_and_hold().move_by_offset(side // 2, side // 4).release().perform()
    page.until_true("s.slots[0].explanation !== window.before")
    box = np.array(page.script("return onnxplain.boxes.box"))
    np.testing.assert_allclose(box, [16, 16, 48, 32], atol=0.6)
    assert_agrees(page, explainer(photograph, box=box))
    page.script("window.before = onnxplain.slots[0].explanation")
    canvas.click()
    page.until_true("s.slots[0].explanation !== window.before")
    assert page.find("[data-input=box]").get_attribute("value") == ""
    assert_agrees(page, explainer(photograph))


def test_a_class_in_a_region(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("map"), explainers["map"]
    page.choose(photograph)
    assert_agrees(page, explainer(photograph))
    give(page, "target", 2)
    assert_agrees(page, explainer(photograph, 2))
    give(page, "region", "24, 0, 64, 80")  # of a photograph whose middle 80 pixels are seen
    region = np.zeros(explainer.metadata.objective.inputs["region"].shape)
    region[:, : region.shape[1] // 2] = 1
    found = page.floats("inputs.region").reshape(region.shape)
    np.testing.assert_array_equal(found, region)
    assert_agrees(page, explainer(photograph, 2, region=region))


def test_a_number_and_its_direction(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("numbers"), explainers["numbers"]
    page.choose(photograph)
    assert page.find(".explanation .name").text == "value 0"
    give(page, "target", 3)
    give(page, "direction", -1)
    assert_agrees(page, explainer(photograph, 3, direction=-1))
    assert page.find(".explanation .name").text == "value 3"
    page = opened("number")
    page.choose(photograph)
    assert_agrees(page, explainers["number"](photograph))


def test_a_step_of_a_sequence(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("text"), explainers["text"]
    page.choose(photograph)
    assert_agrees(page, explainer(photograph))
    assert page.find(".explanation .name").text == "what is read"
    give(page, "target", 3)
    give(page, "position", 5)
    assert_agrees(page, explainer(photograph, 3, position=5))
    assert refused(page, "position", 8).startswith("“position” is from 0 to 7, or -1: the step")
    assert "is a whole number" in refused(page, "position", 1.5)


def test_a_query_from_a_file_or_a_photograph(
    opened: Any, explainers: dict[str, Explainer], photograph: Path, cat: Path, tmp_path: Path
) -> None:
    page, explainer = opened("vector"), explainers["vector"]
    page.script("window.earlier = window.onnxplain.photograph")
    page.find(".photograph-input").send_keys(str(photograph))
    page.until_shown(photograph)
    page.until(lambda: "as soon as “query” is given" in page.find("#status").text)
    (tmp_path / "query.json").write_text(json.dumps([QUERY]))
    give(page, "query", tmp_path / "query.json")
    assert_agrees(page, explainer(photograph, query=QUERY))
    assert page.find(".explanation .name").text == "embedding"
    give(page, "query", cat)
    of_cat = explainer(cat, query=QUERY).outputs["output"][0]
    assert_agrees(page, explainer(photograph, query=of_cat))
    for name, content, sentence in (
        ("a.json", "[1, 2]", "“query” has 5 numbers, and “a.json” 2."),
        ("b.json", '[1, 2, 3, 4, "x"]', "“b.json” holds something else than numbers."),
        ("c.json", "{", "“c.json” is not JSON."),
        ("d.json", "[0, 0, 0, 0, 0]", "“query” is 0 everywhere: the vector to compare with."),
        ("e.txt", "none", "“e.txt” is not an image that this browser can read."),
    ):
        (tmp_path / name).write_text(content)
        assert refused(page, "query", tmp_path / name) == sentence
    np.testing.assert_allclose(page.floats("inputs.query"), of_cat, rtol=1e-4)  # as it was


def test_a_box_that_cannot_be_is_a_sentence(opened: Any, photograph: Path) -> None:
    page = opened("detector")
    page.choose(photograph)
    for box, sentence in {
        "40, 10, 200, 60": "is not left, top, right, bottom within the photograph of 128 × 80",
        "0, 0, 10, 60": "lies where the photograph is cropped: the network does not see it",
        "40, 10, 60": "four numbers with commas between",
        "40, 10, x, 60": "four numbers with commas between",
    }.items():
        assert sentence in refused(page, "box", box)


def test_the_ascent_raises_the_objective(
    opened: Any, explainers: dict[str, Explainer], photograph: Path
) -> None:
    page, explainer = opened("detector"), explainers["detector"]
    page.choose(photograph)
    page.find("#play").click()
    page.until(lambda: page.find("#steps-done").text == "After 5 steps")
    expected = accentuate(explainer, photograph)
    scores = page.script("return onnxplain.ascent.scores")
    assert scores[0] == pytest.approx(float(expected.before[0]), rel=1e-3)
    assert scores[-1] == pytest.approx(float(expected.after[0]), rel=1e-3)
    found = page.floats("ascent.x").reshape(expected.end.shape)
    assert cosine(found - expected.start, expected.difference) >= AGREEMENT
    spoken = page.find("#chart svg").get_attribute("aria-label").split()
    assert spoken[-2:] == ["after", "5"]
    assert float(spoken[-3]) == pytest.approx(scores[-1], rel=1e-3)
