"""The HTML report: what it holds, that it is alone, and that a browser agrees."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain.contract.picture import PictureOptions
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import load
from onnxplain.runtime.report import write_report

HOSTILE = "<script>alert('&amp;')</script>"
COLOURS = {"b.png": "red", "a.png": "lime", "c10.png": "blue", "c9.png": "white"}


class Page(HTMLParser):
    """The elements, each as (tag, attributes), and the text of each `article`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: list[str] = []
        self._open: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append("")
        if tag not in ("meta", "link", "img", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "article" in self._open:
            self.articles[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 16), colour).save(folder / name)
    return [folder / name for name in COLOURS]


def report(explainer, images: list[Path], **options) -> Page:
    path = images[0].parent.parent / "report.html"
    assert write_report(explainer, images, path, **options) == []
    return Page(path)


def picture(uri: str | None) -> Image.Image:
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# What it holds


def test_every_image_has_its_classes_and_pictures(explainer, photos):
    page = report(explainer, photos)
    explanation = explainer(photos)
    assert [article["data-name"] for article in page.all("article")] == list(COLOURS)
    assert len(page.all("img")) == 6 * len(photos)
    for article, text, ranked in zip(
        page.all("article"), page.articles, explanation.labels(), strict=True
    ):
        assert article["data-class"] == ranked[0][0]
        assert float(article["data-confidence"]) == pytest.approx(ranked[0][1], abs=1e-5)
        for name, probability in ranked:
            assert f"{name}{probability:.1%}" in text
        for what in ("Pullback", "Heatmap", "Accentuation", "Difference"):
            assert what in text


def test_probabilities_before_and_after_the_accentuation(explainer, photos):
    from onnxplain.runtime import accentuate

    page = report(explainer, photos, steps=2)
    ascent = accentuate(explainer, photos, steps=2)
    for article, text, before, after in zip(
        page.all("article"), page.articles, ascent.before, ascent.after, strict=True
    ):
        assert f"{before:.1%} → {after:.1%}" in text
        assert float(article["data-gain"]) == pytest.approx(after - before, abs=1e-4)


def test_the_slider_lies_between_the_photograph_and_its_accentuation(explainer, photos):
    page = report(explainer, photos[:1])
    shown = {image["alt"]: np.asarray(picture(image["src"]), int) for image in page.all("img")}
    photograph, end = shown["photograph b.png"], shown["accentuation of b.png for crane"]
    assert np.abs(photograph - [255, 0, 0]).max() < 8
    assert np.abs(photograph - end).max() > 50
    (slider,) = (field for field in page.all("input") if field["type"] == "range")
    assert slider["aria-label"] == "Before and after, b.png, crane"


def test_small_pictures_are_enlarged_by_a_whole_factor(explainer, photos, tiny):
    for image in report(explainer, photos[:1]).all("img"):
        assert picture(image["src"]).size == (32 * tiny.width, 32 * tiny.height)


def test_the_header_says_which_network_and_method(explainer, photos):
    text = report(explainer, photos[:1], steps=1).text
    assert "<h1>by hand, explained</h1>" in text
    assert "gradient, temperature 0.5 · 8 × 6 pixels" in text
    assert "after one step along it" in text


@pytest.mark.parametrize(
    "variant", [{}, {"multi_target": True}, {"batch": 2}, {"layout": "NHWC"}, {"channels": 1}]
)
def test_several_targets_from_the_top_of_the_ranking(graph_file, photos, variant):
    explainer = load(graph_file(**variant))
    page = report(explainer, photos[:1], targets_per_image=3)
    expected = [name for name, _ in explainer(photos[:1]).labels(3)[0]]
    assert len(page.all("section")) == 3
    assert len(page.all("img")) == 1 + 3 * 5
    sliders = [field for field in page.all("input") if field["type"] == "range"]
    assert [slider["aria-label"].split(", ")[-1] for slider in sliders] == expected


def test_files_of_one_name_show_their_folders(explainer, photos):
    other = photos[0].parent / "more" / photos[0].name
    other.parent.mkdir()
    shutil.copy(photos[0], other)
    page = report(explainer, [photos[0], other, photos[1]])
    names = [article["data-name"] for article in page.all("article")]
    assert names == [str(photos[0]), str(other), "a.png"]


def test_progress_is_told_each_image(explainer, photos):
    done: list[int] = []
    report(explainer, photos, progress=done.append)
    assert done == [1, 2, 3, 4]


def test_its_maps_are_drawn_as_asked(explainer, photos):
    plain = report(explainer, photos[:1])
    asked = report(explainer, photos[:1], look=PictureOptions(style="signed"))
    shown = [
        [image["src"] for image in page.all("img") if str(image["alt"]).startswith("heatmap")]
        for page in (plain, asked)
    ]
    assert shown[0] != shown[1]
    with pytest.raises(InputError, match="a report is a grid itself"):
        report(explainer, photos[:1], look=PictureOptions(style="grid"))


# Untrusted text


def test_names_of_files_and_classes_are_escaped(graph_file, photos):
    hostile = photos[0].rename(photos[0].with_name("<script>alert(1)<'\"&.png"))
    explainer = load(graph_file(labels=(HOSTILE,) * 5))
    page = report(explainer, [hostile])
    assert len(page.all("script")) == 1
    (article,) = page.all("article")
    assert (article["data-name"], article["data-class"]) == (hostile.name, HOSTILE)
    assert page.articles[0].count(HOSTILE) == 6


def test_a_file_name_that_is_no_text(explainer, photos):
    odd = Path(os.fsdecode(os.fsencode(photos[0].parent) + b"/\xff.png"))
    try:
        shutil.copy(photos[0], odd)
    except OSError:
        pytest.skip("this file system has no such names")
    (article,) = report(explainer, [odd]).all("article")
    assert article["data-name"] == "?.png"


# Alone


def test_the_page_asks_for_nothing(explainer, photos):
    page = report(explainer, photos)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest", page.text)
    for tag, attributes in page.elements:
        assert "style" not in attributes
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:"), (tag, name)


def test_the_page_forbids_what_it_does_not_need(explainer, photos):
    page = report(explainer, photos)
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    nonce = page.all("script")[0]["nonce"]
    assert page.all("style") == [{"nonce": nonce}]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert policy.count(f"'nonce-{nonce}'") == 2
    assert nonce not in [script["nonce"] for script in report(explainer, photos).all("script")]


# What goes wrong


def test_an_unreadable_image_is_a_row_and_the_rest_goes_on(explainer, photos):
    photos[1].write_bytes(photos[1].read_bytes()[:60])
    missing = photos[0].with_name("missing.png")
    path = photos[0].parent / "report.html"
    failures = write_report(explainer, [*photos, missing], path)
    assert [file for file, _ in failures] == [photos[1], missing]
    page = Page(path)
    assert [a["data-name"] for a in page.all("article")] == [*COLOURS, "missing.png"]
    failed = [i for i, a in enumerate(page.all("article")) if a.get("class") == "failed"]
    assert failed == [1, 4]
    for i, (_, reason) in zip(failed, failures, strict=True):
        assert reason in page.articles[i]
    assert "no such file" in failures[1][1]


def test_the_file_is_replaced_and_nothing_else_is_left(explainer, photos, tmp_path):
    (tmp_path / "report.html").write_text("old")
    report(explainer, photos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "report.html"]


@pytest.mark.parametrize("error", [BackendError("out of memory"), KeyboardInterrupt()])
def test_a_report_that_stops_halfway_leaves_the_old_one(explainer, photos, tmp_path, error):
    (tmp_path / "report.html").write_text("old")

    def stop(done: int) -> None:
        if done == 2:
            raise error

    with pytest.raises(type(error)):
        write_report(explainer, photos, tmp_path / "report.html", progress=stop)
    assert (tmp_path / "report.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "report.html"]


def test_a_path_that_cannot_be_written_is_known_at_once(explainer, photos, tmp_path):
    def never(done: int) -> None:
        raise AssertionError

    (tmp_path / "folder.html").mkdir()
    too_long = "a" * 300 + ".html"
    for name in ("missing/report.html", "photos/b.png/report.html", "folder.html", "/", too_long):
        with pytest.raises(InputError, match="cannot write"):
            write_report(explainer, photos, tmp_path / name, progress=never)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "photos"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets_per_image": 0}, "from 1 to 5, not 0"),
        ({"targets_per_image": 6}, "from 1 to 5, not 6"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
    ],
)
def test_numbers_that_cannot_be_used(explainer, photos, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_report(explainer, photos, tmp_path / "report.html", **options)
    assert not (tmp_path / "report.html").exists()


def test_no_image(explainer, tmp_path):
    with pytest.raises(InputError, match="no image given"):
        write_report(explainer, [], tmp_path / "report.html")


# In a browser


@pytest.fixture
def chromium(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("no chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("window-size=1280,900", f"user-data-dir={tmp_path / 'chromium'}"),
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


class Shown:
    """The report as Chromium shows it."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def css(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def names(self) -> list[str]:
        articles = [a for a in self.css("article") if a.is_displayed()]
        return [a.get_dom_attribute("data-name") for a in articles]

    def sort(self, key: str) -> list[str]:
        from selenium.webdriver import Keys

        self.css(f"[data-sort={key}]")[0].send_keys(Keys.ENTER)
        return self.names()

    def search(self, text: str) -> list[str]:
        from selenium.webdriver import Keys

        self.css("#search")[0].send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE, text)
        return sorted(self.names())

    def count(self) -> str:
        return self.css("#count")[0].text


def test_the_report_works_from_disk_in_chromium(explainer, photos, tmp_path, chromium):
    broken = photos[0].with_name("d.png")
    broken.write_text("no picture")
    path = tmp_path / "report.html"
    write_report(explainer, [*photos, broken], path)
    chromium.get(path.as_uri())
    shown = Shown(chromium)

    # Every picture was decoded.
    chromium.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.images].map((image) => image.decode())).then(() => done())"
    )
    assert shown.count() == "5 images, 1 unreadable"
    it_sorts(shown)
    it_searches(shown)
    its_slider_moves(shown)

    # A phone has no sideways scrolling.
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    assert chromium.execute_script("return document.documentElement.scrollWidth") == 390

    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requests = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    own = ("data:", "chrome:")  # in the page, and of the browser's own first tab
    assert {url for url in requests if not url.startswith(own)} == {path.as_uri()}


def it_sorts(shown: Shown) -> None:
    """By name, numbers as numbers, up and down; what failed has no class or gain and is last."""
    by_name = ["a.png", "b.png", "c9.png", "c10.png", "d.png"]
    assert shown.names() == by_name
    assert shown.sort("name") == by_name[::-1]
    assert shown.sort("name") == by_name
    articles = {a.get_dom_attribute("data-name"): a for a in shown.css("article:not(.failed)")}
    for key in ("class", "confidence", "gain"):
        values = {name: a.get_dom_attribute(f"data-{key}") for name, a in articles.items()}
        order = str.casefold if key == "class" else lambda value: -float(value)
        *names, last = shown.sort(key)
        assert [values[name] for name in names] == sorted(values.values(), key=order)
        assert last == shown.sort(key)[-1] == "d.png"
        again = [values[name] for name in shown.names()[:4]]
        assert again == sorted(values.values(), key=order)[::-1]
        pressed = [button.text.split()[0].lower() for button in shown.css("[aria-pressed=true]")]
        assert pressed == [key]


def it_searches(shown: Shown) -> None:
    """By file name, by class, by nothing."""
    assert shown.search("C1") == ["c10.png"]
    assert shown.count() == "1 of 5 images, 1 unreadable"
    assert shown.search("espresso") == ["a.png", "b.png", "c10.png", "c9.png"]
    assert shown.search("nothing") == []
    assert len(shown.search("")) == 5


def its_slider_moves(shown: Shown) -> None:
    """By key and by pointer; the line and the picture follow."""
    from selenium.webdriver import ActionChains, Keys

    slider = shown.css("input[type=range]")[0]

    def edge() -> str:
        return shown.driver.execute_script(
            "return getComputedStyle(arguments[0].parentElement.children[1]).clipPath", slider
        )

    assert edge() == "inset(0px 0px 0px 50%)"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert edge() == "inset(0px 0px 0px 51%)"
    slider.send_keys(Keys.HOME)
    assert edge() == "inset(0px 0px 0px 0%)"
    ActionChains(shown.driver).move_to_element(slider).click_and_hold().move_by_offset(
        slider.size["width"] // 4, 0
    ).release().perform()
    assert 70 < float(re.findall(r"([\d.]+)%", edge())[0]) < 85
