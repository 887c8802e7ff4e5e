"""The page in a real browser, with real photographs: it agrees with the Python runtime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from onnxplain.runtime import Explainer, accentuate, load
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.pictures.render import overlay, signed_image
from onnxplain.web import write_site

from ..runtime.conftest import explain_graph
from .browser import Page, chromium, requests, served
from .conftest import TEMPERATURE

AGREEMENT = 0.999

pytestmark = pytest.mark.xdist_group("page")  # what they share takes long to make


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def pullback(page: Page, place: int = 0) -> np.ndarray:
    return page.floats(f"slots[{place}].explanation.pullback")


def percentage(text: str) -> float:
    return float(text.split("\u202f")[0])


def assert_agrees(page: Page, explainer: Explainer, image: Path, **options: Any) -> None:
    """Names, probabilities, and the pullback of the class on show."""
    explanation = explainer([image], **options)
    expected = explanation.labels(5)[0]
    found = page.classes()[:5]
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, text), (_, probability) in zip(found, expected, strict=True):
        assert percentage(text) == pytest.approx(100 * probability, abs=0.06)
    assert cosine(pullback(page), explanation.pullback) >= AGREEMENT


def photograph_pixels(page: Page, selector: str, size: int = 224) -> np.ndarray:
    return page.picture(selector).reshape(size, size, 4)[..., :3].astype(int)


def test_a_chosen_photograph_is_explained(new_page: Page, explainer: Explainer, cat: Path) -> None:
    page = new_page
    page.choose(cat)
    assert_agrees(page, explainer, cat)
    assert page.find(".explanation .name").text == explainer([cat]).names[0]
    assert page.find("#status").text.startswith(explainer([cat]).names[0])
    assert not page.find("#welcome").is_displayed()
    assert not page.find("#loading").is_displayed()
    assert page.errors() == []


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_photograph_is_explained(
    page: Page, explainer: Explainer, coffee: Path, kind: str
) -> None:
    page.drop(coffee, kind)
    assert_agrees(page, explainer, coffee)


def test_a_second_photograph_takes_the_place_of_the_first(
    page: Page, explainer: Explainer, cat: Path, coffee: Path
) -> None:
    page.choose(cat)
    page.choose(coffee)
    assert_agrees(page, explainer, coffee)


def test_pictures_are_those_that_python_draws(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    explanation = explainer([cat])
    photograph = explanation.photographs[0]
    expected = np.asarray(signed_image(explanation.pullback[0])).astype(int)
    assert np.abs(photograph_pixels(page, ".explanation canvas") - expected).max() <= 1
    assert (photograph_pixels(page, "#photograph") == photograph).all()
    page.find("#overlay").click()
    expected = np.asarray(overlay(photograph, explanation.heatmap()[0])).astype(int)
    assert np.abs(photograph_pixels(page, "#photograph") - expected).max() <= 1


def turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright by a camera that lay on its side
    image.save(path, exif=exif)


def see_through(image: Image.Image, path: Path) -> None:
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    image.save(path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("turned.jpg", turned),
        ("see-through.png", see_through),
        ("grey.png", lambda image, path: image.convert("L").save(path)),
        ("small.webp", lambda image, path: image.resize((40, 30)).save(path, lossless=True)),
        ("long.png", lambda image, path: image.resize((700, 20)).save(path)),
    ],
)
def test_what_the_network_sees_is_what_it_sees_in_python(
    page: Page,
    explainer: Explainer,
    photographs: dict[str, np.ndarray],
    tmp_path: Path,
    name: str,
    save: Callable[[Image.Image, Path], None],
) -> None:
    save(Image.fromarray(photographs["chelsea"]), tmp_path / name)
    page.choose(tmp_path / name)
    batch, _ = as_batch([tmp_path / name], explainer.metadata.preprocessing)
    found = page.floats("photograph.x").reshape(batch.shape)
    level = 1 / 255 / min(explainer.metadata.preprocessing.std)
    assert np.abs(found - batch).max() <= 1.01 * level  # browsers blend in other roundings
    assert_agrees(page, explainer, tmp_path / name)


def test_a_click_explains_another_class(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    page.pick("tabby")
    assert page.find(".explanation .name").text == "tabby"
    assert_agrees(page, explainer, cat, targets="tabby")


def test_any_class_is_found(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    search = page.find("#search")
    search.send_keys("cat")
    names = [name for name, _ in page.classes()]
    assert names[:2] == [name for name, _ in explainer([cat]).labels(2)[0]]
    assert all("cat" in name for name in names)
    assert "likeliest first" in page.find("#matches").text
    search.clear()
    search.send_keys("no such thing")
    assert page.classes() == []
    assert "No class" in page.find("#matches").text
    search.clear()
    search.send_keys("espresso", Keys.ENTER)
    page.until(lambda: page.find(".explanation .name").text == "espresso")
    page.until_explained()
    assert len(page.classes()) >= 6  # the likeliest, and the chosen one
    assert_agrees(page, explainer, cat, targets="espresso")


@pytest.mark.parametrize("temperature", [0.1, 0.3, 3])
def test_moving_the_temperature_changes_the_pullback(
    page: Page, explainer: Explainer, cat: Path, temperature: float
) -> None:
    page.choose(cat)
    before = pullback(page)
    set_temperature(page, temperature)
    chosen = page.script("return onnxplain.temperature")
    assert chosen == pytest.approx(temperature, rel=0.02)
    assert f"{chosen:.2g}" in page.find("#temperature-value").text
    assert_agrees(page, explainer, cat, temperature=chosen)
    assert cosine(pullback(page), before) < AGREEMENT
    page.find("#temperature-reset").click()
    page.until_explained()
    assert_agrees(page, explainer, cat, temperature=TEMPERATURE)


def set_temperature(page: Page, *values: float) -> None:
    """Move the slider through all values, faster than the network can follow."""
    page.script(
        "const slider = document.getElementById('temperature');"
        "for (const value of arguments) { slider.value = Math.log10(value);"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        *values,
    )
    page.until_explained()


def test_the_newest_temperature_wins(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    began = time.monotonic()
    set_temperature(page, *np.geomspace(0.1, 2, 200).tolist())
    assert time.monotonic() - began < 30  # two hundred runs would take minutes
    assert_agrees(page, explainer, cat, temperature=page.script("return onnxplain.temperature"))


def test_the_ascent_is_pythons(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    page.pick("tiger cat")
    for steps in (1, 6):  # past five it reaches ε
        page.find("#step" if steps == 1 else "#play").click()
        words = "After 1 step" if steps == 1 else f"After {steps} steps"
        page.until(lambda words=words: page.find("#steps-done").text == words)
        expected = accentuate(explainer, [cat], "tiger cat", steps)
        found = page.floats("ascent.x").reshape(expected.end.shape)
        assert cosine(found - expected.start, expected.difference) >= AGREEMENT
        probabilities = page.script("return onnxplain.ascent.scores")
        assert len(probabilities) == steps + 1
        assert probabilities[0] == pytest.approx(expected.before[0], abs=1e-3)
        assert probabilities[-1] == pytest.approx(expected.after[0], abs=1e-3)
        drawn = np.asarray(signed_image(expected.difference[0])).astype(int)
        assert np.abs(photograph_pixels(page, "#difference") - drawn).mean() < 1
    assert len(page.find_all("#chart circle")) == 7
    label = page.find("#chart svg").get_attribute("aria-label")
    assert f"{100 * expected.after[0]:.1f}\u202f% after 6" in label
    page.find("#reset").click()
    assert not page.find("#climb").is_displayed()


def test_another_class_begins_another_ascent(page: Page, cat: Path) -> None:
    page.choose(cat)
    page.find("#play").click()
    page.pick("tabby")
    assert page.script("return onnxplain.ascent") is None
    page.find("#step").click()
    page.until(lambda: page.find("#steps-done").text == "After 1 step")
    tabby = page.script("return onnxplain.slots[0].target")
    assert page.script("return onnxplain.ascent.target") == tabby


def test_two_classes_are_compared(page: Page, explainer: Explainer, cat: Path) -> None:
    page.choose(cat)
    page.find("#compare").click()
    page.until_explained()
    names = [element.text for element in page.find_all(".explanation .name")]
    assert names == [name for name, _ in explainer([cat]).labels(2)[0]]
    page.pick("lynx")  # for the second place
    expected = explainer([cat, cat], [names[0], "lynx"])
    for place in (0, 1):
        assert cosine(pullback(page, place), expected.pullback[place]) >= AGREEMENT
    page.find("#choosing button").click()
    page.pick("tabby")  # and for the first
    names = [element.text for element in page.find_all(".explanation .name")]
    assert names == ["tabby", "lynx"]
    page.find("#compare").click()
    assert [element.text for element in page.find_all(".explanation .name")] == ["tabby"]


def test_the_pictures_are_downloaded(page: Page, cat: Path, downloads: Path) -> None:
    page.choose(cat)
    page.pick("tiger cat")
    page.find("#download").click()
    path = downloads / "cat-tiger-cat.png"
    page.until(path.exists)
    picture = Image.open(path)
    assert picture.width > 2 * 448
    assert np.asarray(picture.crop((0, 0, picture.width, 448))).std() > 10


def test_all_of_it_by_keyboard(new_page: Page, explainer: Explainer, cat: Path) -> None:
    """Tab, Enter, Space and arrows alone (what opens the file dialog is the browser's own)."""
    page = new_page
    page.choose(cat)

    def focused() -> str:
        return str(
            page.script("const e = document.activeElement; return e.id || e.dataset.class || ''")
        )

    def press(*keys: str) -> None:
        ActionChains(page.driver).send_keys(*keys).perform()

    def tab_to(identity: str, *keys: str) -> None:
        for _ in range(40):
            if focused() == identity:
                return press(*keys)
            press(Keys.TAB)
        raise AssertionError(f"the Tab key does not reach {identity}")

    tab_to("overlay", Keys.SPACE)
    second = int(np.argsort(-explainer([cat]).logits[0], kind="stable")[1])
    tab_to(str(second), Keys.ENTER)
    page.until_explained()
    assert focused() == str(second)  # the list was drawn anew, the focus stayed
    tab_to("search", "tabby", Keys.ENTER)
    page.until(lambda: page.find(".explanation .name").text == "tabby")
    tab_to("temperature", Keys.ARROW_LEFT * 5)
    page.until_explained()
    assert page.script("return onnxplain.temperature") < TEMPERATURE
    tab_to("step", Keys.ENTER)
    page.until(lambda: page.find("#steps-done").text == "After 1 step")
    outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # the focus is seen
    tab_to("reset", Keys.ENTER)
    assert focused() == "step"


def test_a_file_that_is_no_image_is_a_sentence(
    page: Page, explainer: Explainer, cat: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    page.find(".photograph-input").send_keys(str(tmp_path / "notes.txt"))
    page.until(lambda: page.find("#error").is_displayed())
    assert page.find("#error").text == "“notes.txt” is not an image that this browser can read."
    page.choose(cat)
    assert not page.find("#error").is_displayed()
    assert_agrees(page, explainer, cat)


def test_loading_is_shown_and_a_photograph_may_come_first(
    driver: Any, site: Path, explainer: Explainer, cat: Path
) -> None:
    gate = threading.Event()
    with served(site, gate) as address:
        page = Page(driver, address)
        loaded = site / "model.onnx", site / "ort" / "ort-wasm-simd-threaded.wasm"
        total = sum(file.stat().st_size for file in loaded) / 1e6
        page.until(lambda: page.find("#megabytes").text.endswith(f" of {total:.1f} MB"))
        assert 0 < float(page.find("#progress").get_attribute("value")) < 1
        page.find(".photograph-input").send_keys(str(cat))
        page.until_shown(cat)
        assert page.find("#loading").is_displayed()
        page.find("#compare").click()  # and so may wishes
        gate.set()
        page.until_explained()
        assert not page.find("#loading").is_displayed()
        assert_agrees(page, explainer, cat)
        expected = explainer([cat], -2).pullback
        assert cosine(pullback(page, 1), expected) >= AGREEMENT


@pytest.mark.parametrize("missing", ["model.json", "model.onnx"])
def test_an_incomplete_site_is_a_sentence(
    driver: Any, site: Path, tmp_path: Path, missing: str
) -> None:
    for file in site.rglob("*"):
        if file.is_file() and file.name != missing:
            copy = tmp_path / file.relative_to(site)
            copy.parent.mkdir(exist_ok=True)
            copy.hardlink_to(file)
    with served(tmp_path) as address:
        page = Page(driver, address)
        page.until(lambda: page.find("#error").is_displayed())
        assert page.find("#error").text == f"The server has no {missing} (404)."


def test_threads_in_a_subfolder_and_one_without_isolation(
    driver: Any, site: Path, explainer: Explainer, cat: Path
) -> None:
    with served(site.parent) as address:
        page = Page(driver, f"{address}{site.name}/")
        page.until_loaded()
        assert page.script("return self.crossOriginIsolated")
        hide = "Object.defineProperty(navigator, 'serviceWorker', {value: undefined})"
        script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
        with served(site) as elsewhere:  # an origin that has no service worker yet
            page = Page(driver, elsewhere)
            page.until_loaded()
            assert not page.script("return self.crossOriginIsolated")
            assert page.script("return onnxplain.device") == "WebAssembly, 1 thread"
            page.choose(cat)
            assert_agrees(page, explainer, cat)
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_from_a_file_it_says_what_to_do(driver: Any, site: Path) -> None:
    page = Page(driver, (site / "index.html").as_uri())
    page.until(lambda: page.find("#unserved").is_displayed())
    assert "python -m http.server" in page.find("#unserved").text


def test_no_request_leaves_the_origin(
    need_chromium: None, site: Path, cat: Path, tmp_path: Path
) -> None:
    """The browser's own log of its network, with what workers ask for."""
    with served(site) as address:
        with chromium(tmp_path) as driver:
            page = Page(driver, address)
            page.until_loaded()
            page.choose(cat)
            page.find("#compare").click()
            page.until_explained()
            page.find("#step").click()
            page.until(lambda: page.find("#steps-done").text == "After 1 step")
            page.find("#download").click()
            outside = "return fetch('https://example.com').then(() => 'sent', () => 'blocked')"
            assert page.script(outside) == "blocked"
        origin = address.rstrip("/")
        asked = [url for initiator, url in requests(tmp_path) if initiator == origin]
    assert {f"{origin}/model.onnx", f"{origin}/ort/ort-wasm-simd-threaded.wasm"} <= set(asked)
    assert [url for url in asked if not url.startswith((address, f"blob:{origin}", "data:"))] == []


KINDS: dict[str, dict[str, Any]] = {
    "labels": {"labels": ()},
    "batch": {"batch": 2},
    "multi_target": {"multi_target": True},
    "layout": {"layout": "NHWC"},
    "channels": {"channels": 1},
    "live_temperature": {"live_temperature": True},
}


@pytest.fixture(scope="module")
def kinds(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a site whose menu has all `KINDS`, and the folder of their graphs."""
    folder = tmp_path_factory.mktemp("kinds")
    graphs = [folder / f"{kind}.onnx" for kind in KINDS]
    for graph, variant in zip(graphs, KINDS.values(), strict=True):
        onnx.save(explain_graph(**variant), graph)
    write_site(graphs, folder / "site")
    with served(folder / "site") as address:
        yield address, folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_graph(driver: Any, kinds: tuple[str, Path], cat: Path, kind: str) -> None:
    address, folder = kinds
    variant, graph = KINDS[kind], folder / f"{kind}.onnx"
    page = Page(driver, address, reuse=True)
    page.until_loaded()
    carried_over = page.script("return Boolean(onnxplain.photograph)")
    page.find(f"#networks option:nth-child({list(KINDS).index(kind) + 1})").click()
    chosen = "document.getElementById('networks').value"
    page.until_true(f"s.device && s.model.graph === {chosen}.replace('.json', '.onnx')")
    if carried_over:
        page.until_explained()
    page.choose(cat)
    explainer = load(graph)
    expected = explainer([cat])
    names = [name for name, _ in expected.labels(5)[0]]
    if not explainer.labels:
        names = [f"class {name}" for name in names]
    assert [name for name, _ in page.classes()] == names
    assert cosine(pullback(page), expected.pullback) >= AGREEMENT
    assert page.find("#temperature-live").is_displayed() == ("live_temperature" in variant)
    assert ("--live-temperature" in page.find("#temperature-help").text) == (
        "live_temperature" not in variant
    )
    page.find("#step").click()
    page.until(lambda: page.find("#steps-done").text == "After 1 step")
    ascent = accentuate(explainer, [cat], steps=1)
    found = page.floats("ascent.x").reshape(ascent.end.shape) - ascent.start
    assert cosine(found, ascent.difference) >= AGREEMENT
    assert page.errors() == []


def test_networks_and_photographs_are_chosen_from_a_menu(
    driver: Any, unpacked: None, cat: Path, coffee: Path, tmp_path: Path
) -> None:
    graphs = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    onnx.save(explain_graph(), graphs[0])
    onnx.save(explain_graph(labels=(), layout="NHWC", live_temperature=True), graphs[1])
    site = tmp_path / "site"
    write_site(graphs, site, photographs=[cat, coffee])
    first, second = map(load, graphs)
    with served(site) as address:
        page = Page(driver, address)
        page.until_loaded()
        page.find("#photographs li:nth-child(2) button").click()
        page.until_shown(site / "photographs" / "2-coffee.png")
        page.until_explained()
        assert cosine(pullback(page), first([coffee]).pullback) >= AGREEMENT
        page.find("#step").click()
        page.find("#networks option:nth-child(2)").click()
        page.until(lambda: page.script("return onnxplain.device && onnxplain.model.live.length"))
        page.until_explained()
        expected = second([coffee])
        assert cosine(pullback(page), expected.pullback) >= AGREEMENT
        assert page.classes()[0][0] == f"class {expected.targets[0]}"
        assert page.find("#temperature-live").is_displayed()
        page.find("#photographs li:nth-child(1) button").click()
        page.until_shown(site / "photographs" / "1-cat.jpg")
        page.until_explained()
        assert cosine(pullback(page), second([cat]).pullback) >= AGREEMENT
        page.find("#networks option:nth-child(1)").click()
        page.until(lambda: page.script("return onnxplain.device && !onnxplain.model.live.length"))
        page.until_explained()
        assert cosine(pullback(page), first([cat]).pullback) >= AGREEMENT
        assert page.errors() == []


@pytest.fixture(scope="module")
def driver_with_gpu(need_chromium: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    flags = ("enable-unsafe-webgpu", "use-webgpu-adapter=swiftshader")
    with chromium(tmp_path_factory.mktemp("chromium"), *flags) as driver:
        yield driver


@pytest.mark.parametrize(("needed", "device"), [(0.999, "WebGPU"), (1.1, "WebAssembly, ")])
def test_webgpu_is_used_if_it_agrees(
    driver_with_gpu: Any, unpacked: None, cat: Path, tmp_path: Path, needed: float, device: str
) -> None:
    """On a GPU in software, which the page would not use of itself."""
    graph, site = tmp_path / "tiny.onnx", tmp_path / "site"
    onnx.save(explain_graph(), graph)
    write_site(graph, site)
    worker = (site / "worker.js").read_text()
    for before, after in {
        "!adapter.info?.isFallbackAdapter": "true",
        "AGREEMENT = 0.999": f"AGREEMENT = {needed}",
    }.items():
        assert before in worker
        worker = worker.replace(before, after)
    (site / "worker.js").write_text(worker)
    with served(site) as address:
        page = Page(driver_with_gpu, address)
        page.until_loaded()
        assert page.script("return onnxplain.device").startswith(device)
        page.choose(cat)
        assert cosine(pullback(page), load(graph)([cat]).pullback) >= AGREEMENT
