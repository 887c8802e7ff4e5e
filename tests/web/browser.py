"""A real Chromium, and the site served to it."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 120  # seconds: a shared machine of two cores compiles 14 MB of WebAssembly


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, gate: threading.Event | None, **kwargs: Any) -> None:
        self.gate = gate
        super().__init__(*args, **kwargs)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.gate and self.path.endswith(".onnx"):
            outputfile.write(source.read(1_500_000))
            self.gate.wait(PATIENCE)
        super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path, gate: threading.Event | None = None) -> Iterator[str]:
    """The address of a static server, like `python -m http.server`.

    Until the gate is set, it sends 1.5 MB of the graph and no more.
    """
    handler = partial(_Handler, directory=folder, gate=gate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def chromium(folder: Path, *arguments: str) -> Iterator[Any]:
    """A headless Chromium that keeps its profile, downloads and network log in a new folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        f"user-data-dir={folder / 'profile'}",
        f"log-net-log={folder / 'network.json'}",
        "window-size=1280,1000",
        *arguments,
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def requests(folder: Path) -> list[tuple[str, str]]:
    """(initiator, address) of all that a browser asked for, workers included, once it is closed."""
    log = json.loads((folder / "network.json").read_text())
    return [
        (event["params"]["initiator"], event["params"]["url"])
        for event in log["events"]
        if "initiator" in event.get("params", {}) and "url" in event["params"]
    ]


class Page:
    """The page as a person uses it, and the numbers behind what it shows."""

    def __init__(self, driver: Any, address: str, reuse: bool = False) -> None:
        """Open an address; to `reuse` what is open, only if it is another's."""
        self.driver = driver
        driver.get_log("browser")  # forget what earlier pages said
        driver.set_script_timeout(PATIENCE)
        if not (reuse and driver.current_url == address):
            driver.get(address)

    def find(self, selector: str) -> WebElement:
        found: WebElement = self.driver.find_element(By.CSS_SELECTOR, selector)
        return found

    def find_all(self, selector: str) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait; the page may be drawn anew, or reload itself for its threads, meanwhile."""
        wait = WebDriverWait(self.driver, PATIENCE, 0.05, [WebDriverException])
        return wait.until(lambda _: condition())

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def until_true(self, condition: str, *arguments: Any) -> None:
        """Wait in the page for an expression of `s`, what it knows, and `arguments`."""
        wait = (
            "return new Promise((resolve) => { const timer = setInterval(() => {"
            f" const s = window.onnxplain; if (!(s && ({condition}))) return;"
            " clearInterval(timer); resolve(true); }, 10); })"
        )
        self.until(lambda: self.script(wait, *arguments))

    def until_loaded(self) -> None:
        """The network can run."""
        self.until_true("s.device")

    def until_explained(self) -> None:
        """Nothing on the page is out of date."""
        self.until_true(
            "s.slots.length > 0 && s.slots.every(({target, explanation: e}) =>"
            " e?.target === target && e.temperature === s.temperature && e.inputs === s.inputs)"
        )

    def until_shown(self, image: Path) -> None:
        """The photograph is on the page, explained or not."""
        self.until_true("s.photograph?.name === arguments[0]", image.name)

    @contextlib.contextmanager
    def explaining(self, image: Path) -> Iterator[None]:
        """Wait for the explanation of an image given meanwhile, be it the one that is there."""
        self.script("window.earlier = window.onnxplain.photograph")
        yield
        self.until_true("s.photograph !== window.earlier")
        self.until_shown(image)
        self.until_explained()

    def choose(self, image: Path) -> None:
        """Put a file into the page's picker, and wait for its explanation."""
        with self.explaining(image):
            self.find(".photograph-input").send_keys(str(image))

    def take_back(self) -> None:
        """Set all but the photograph as it is on a page just opened."""
        self.script(
            "document.querySelectorAll('#overlay:checked, #compare:checked').forEach("
            "(box) => box.click()); document.getElementById('temperature-reset').click()"
        )
        self.until_true("!s.photograph || s.slots.every(({explanation}) => explanation)")

    def drop(self, image: Path, kind: str = "drop") -> None:
        """Drop a file onto the page, or "paste" it."""
        drop = (
            "const [content, name, kind] = arguments;"
            "const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));"
            "const data = new DataTransfer();"
            "data.items.add(new File([bytes], name));"
            "const event = kind === 'drop' ? new DragEvent(kind, {dataTransfer: data})"
            " : new ClipboardEvent(kind, {clipboardData: data});"
            "document.dispatchEvent(event);"
        )
        with self.explaining(image):
            self.script(drop, base64.b64encode(image.read_bytes()).decode(), image.name, kind)

    def _bytes(self, array: str, *arguments: Any) -> bytes:
        """A typed array's: a script's result is JSON, which takes long for a hundred thousand."""
        text = self.script(
            f"const {{buffer, byteOffset, byteLength}} = {array}; let text = '';"
            "for (const byte of new Uint8Array(buffer, byteOffset, byteLength))"
            " text += String.fromCharCode(byte);"
            "return btoa(text)",
            *arguments,
        )
        return base64.b64decode(text)

    def floats(self, expression: str) -> NDArray[np.float32]:
        """A Float32Array of the page's state, such as `slots[0].explanation.pullback`."""
        assert self.script(f"return onnxplain.{expression} instanceof Float32Array")
        return np.frombuffer(self._bytes(f"onnxplain.{expression}"), np.float32)

    def picture(self, selector: str) -> NDArray[np.uint8]:
        """A canvas' RGBA pixels, flat."""
        pixels = (
            "((c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
            "(document.querySelector(arguments[0]))"
        )
        return np.frombuffer(self._bytes(pixels, selector), np.uint8)

    def classes(self) -> list[tuple[str, str]]:
        """What the list says: (name, percentage)."""
        return [
            tuple(row.find_element(By.CLASS_NAME, part).text for part in ("name", "percent"))
            for row in self.find_all("#classes .class")
        ]

    def pick(self, name: str) -> None:
        """Click a class of the list."""
        (row,) = (r for r in self.find_all("#classes .class") if name in r.text.splitlines())
        row.click()
        self.until_explained()

    def errors(self) -> list[str]:
        """What went wrong on the console."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
