"""The live page in a real Chromium: what it shows, by keyboard, in the dark, after a restart.

    MIEN_SCREENSHOTS=docs python -m pytest tests/e2e/test_live_page.py -k pictures_of

writes anew what docs/live-page.md shows.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from cloud_recognizer.live_page.jpeg import BYTES_A_FACE
from mien.bundle import Bundle
from tests.support.chromium import chromium, emulate
from tests.support.recognizer import Device, Running, hello, running_recognizer
from tests.support.scene import DEVICES, Scene
from tests.support.waiting import until

SCREENSHOTS = os.environ.get("MIEN_SCREENSHOTS")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def scene(bundle: Bundle) -> Scene:
    return Scene(bundle)


async def on_the_page(
    chrome: Chrome, scene: Scene, bundle: Bundle, steps: Callable[[Running], None], **more: Any
) -> None:
    """Take steps in the browser while devices stream; at their end its console must be empty."""
    settings: dict[str, Any] = {"live_page": "127.0.0.1:0", **more}
    async with running_recognizer(bundle.folder, **settings) as running, scene.streaming(running):

        def visit() -> None:
            chrome.get_log("browser")
            chrome.get(str(running.serving.live_page))
            until(lambda: len(names(chrome)) == len(DEVICES), lambda: text(chrome, "body"))
            try:
                steps(running)
                assert chrome.get_log("browser") == [], "nothing was refused, nothing failed"
            finally:
                chrome.get("about:blank")

        await asyncio.to_thread(visit)


def names(chrome: Chrome) -> list[str]:
    return [cell.text for cell in chrome.find_elements(By.CSS_SELECTOR, "#devices tbody th")]


def text(chrome: Chrome, selector: str) -> str:
    return chrome.find_element(By.CSS_SELECTOR, selector).text


def number(chrome: Chrome, selector: str) -> float:
    return float(text(chrome, selector).replace(",", "").replace("–", "nan"))


async def test_devices_faces_and_figures_are_shown_as_they_come(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    def steps(running: Running) -> None:
        assert names(chrome) == sorted(DEVICES)
        assert text(chrome, "#connection") == "Live"
        rows = "#in-view tbody tr"
        until(lambda: len(chrome.find_elements(By.CSS_SELECTOR, rows)) == sum(DEVICES.values()))
        expressions = {
            cell.text for cell in chrome.find_elements(By.CSS_SELECTOR, f"{rows} td:nth-child(3)")
        }
        assert expressions <= set(bundle.manifest.expressions)
        legend = [item.text for item in chrome.find_elements(By.CSS_SELECTOR, "#legend li")]
        assert legend == [*bundle.manifest.expressions]
        before = number(chrome, "#faces")
        until(lambda: number(chrome, "#faces") > before)
        coded = running.sample("bundle_payload_bytes_total", bundle_id=bundle.bundle_id)
        faces = running.sample("bundle_faces_total", bundle_id=bundle.bundle_id)
        assert number(chrome, "#bytes") == pytest.approx(coded / faces, rel=0.1)
        bytes_a_face, said = chrome.execute_script(BYTES_AND_JPEG)  # of the same moment
        assert said.startswith(f"{BYTES_A_FACE:g}\N{NO-BREAK SPACE}bytes a face as JPEG, ")
        times = float(said.split("JPEG, ")[1].split(" times")[0])
        assert times == pytest.approx(BYTES_A_FACE / float(bytes_a_face), rel=0.01)
        assert text(chrome, "#accuracy").endswith("%")
        calibrated = bundle.manifest.calibration is not None
        assert ("not calibrated" not in text(chrome, "#accuracy-note")) == calibrated
        until(lambda: bool(chrome.execute_script(HAS_COLOUR)), lambda: "no ribbon was drawn")
        # A sentence every twenty seconds, for those who see none of it.
        until(lambda: "faces in view" in text_of(chrome, "announcer"))

    await on_the_page(chrome, scene, bundle, steps)


async def test_a_device_that_is_connected_and_silent_has_a_row_until_it_leaves(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    loop = asyncio.get_running_loop()

    async def came(running: Running) -> Device:
        silent = Device(running.stub)
        await silent.open(hello(bundle, "attic"))
        return silent

    def steps(running: Running) -> None:
        silent = asyncio.run_coroutine_threadsafe(came(running), loop).result(60)
        until(lambda: names(chrome) == ["attic", *sorted(DEVICES)], lambda: text(chrome, "body"))
        row = "#devices tbody tr:first-child td"
        assert text(chrome, row).startswith("no face since ")
        asyncio.run_coroutine_threadsafe(silent.close(), loop).result(60)
        until(lambda: names(chrome) == sorted(DEVICES), lambda: text(chrome, "body"))

    await on_the_page(chrome, scene, bundle, steps)


BYTES_AND_JPEG = """
return ['bytes', 'jpeg'].map((id) => document.getElementById(id).textContent);
"""
HAS_COLOUR = """
const canvas = document.querySelector('#timeline canvas');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
return canvas.getAttribute('aria-label').startsWith('entrance-hall: ') && pixels.some((n) => n > 0);
"""


def text_of(chrome: Chrome, element: str) -> str:
    """Also of what only screen readers see."""
    return str(chrome.execute_script(f"return document.getElementById('{element}').textContent"))


async def test_everything_works_by_keyboard(chrome: Chrome, scene: Scene, bundle: Bundle) -> None:
    def steps(running: Running) -> None:
        def press(*keys: str) -> None:
            chrome.switch_to.active_element.send_keys(*keys)

        def focused() -> str:
            return str(chrome.execute_script("return document.activeElement.id"))

        press(Keys.TAB)
        assert chrome.switch_to.active_element.text == "Skip to the devices"
        press(Keys.TAB)
        assert focused() == "announce"
        press(Keys.TAB, Keys.SPACE)
        assert focused() == "pause"
        pressed = chrome.switch_to.active_element
        assert pressed.get_attribute("aria-pressed") == "true"
        shown, counted = text(chrome, "main"), running.sample("faces_total", rpc="StreamFaces")
        until(lambda: running.sample("faces_total", rpc="StreamFaces") > counted + 50)
        assert text(chrome, "main") == shown, "paused is paused"
        press(Keys.SPACE)
        until(lambda: text(chrome, "main") != shown)
        while focused() != "moment":
            press(Keys.TAB)
        until(lambda: len(names(chrome)) == len(DEVICES))
        time.sleep(2)  # so that there is a second to look at
        press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
        until(lambda: "entrance-hall: " in text(chrome, "#moment-said"))
        assert text(chrome, "#moment-said").startswith("At ")

    await on_the_page(chrome, scene, bundle, steps)


async def test_a_page_whose_recognizer_restarts_says_so_and_goes_on(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    address = ""

    def leave(running: Running) -> None:
        nonlocal address
        address = str(running.serving.live_page).removeprefix("http://").strip("/")
        chrome.execute_script("window.still = 'the same page'")

    settings: dict[str, Any] = {"live_page": "127.0.0.1:0"}
    async with running_recognizer(bundle.folder, **settings) as running, scene.streaming(running):
        await asyncio.to_thread(chrome.get, str(running.serving.live_page))
        await asyncio.to_thread(until, lambda: len(names(chrome)) == len(DEVICES))
        leave(running)
    await asyncio.to_thread(until, lambda: "again" in text(chrome, "#connection"))
    async with (
        running_recognizer(bundle.folder, live_page=address) as running,
        scene.streaming(running),
    ):
        await asyncio.to_thread(until, lambda: text(chrome, "#connection") == "Live")
        await asyncio.to_thread(until, lambda: text(chrome, "#faces") not in ("0", "–"))
        assert chrome.execute_script("return window.still") == "the same page"
        await asyncio.to_thread(chrome.get, "about:blank")
        chrome.get_log("browser")  # it says that nobody was there


async def test_there_is_no_picture_unless_policy_allows_it_and_then_it_is_marked(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    def without(_: Running) -> None:
        until(lambda: text(chrome, "#picture-policy").startswith("Off."))
        assert not chrome.find_element(By.CSS_SELECTOR, "td.pictures").is_displayed()
        assert not chrome.find_element(By.ID, "picture").is_displayed()

    def with_it(running: Running) -> None:
        button = chrome.find_element(By.CSS_SELECTOR, "td.pictures button")
        until(button.is_displayed)
        assert button.accessible_name.endswith("of entrance-hall")
        button.click()
        picture = chrome.find_element(By.ID, "picture")
        until(picture.is_displayed, lambda: text(chrome, "#picture-said"))
        image = picture.find_element(By.TAG_NAME, "img")
        assert image.get_property("naturalWidth") == bundle.manifest.image.width
        assert "not what the camera saw" in str(image.get_attribute("alt"))
        assert "SYNTHETIC" in picture.text
        assert "Not what the camera saw" in picture.text
        assert running.sample("reconstructions_total") > 0
        chrome.find_element(By.ID, "picture-close").click()
        assert not picture.is_displayed()
        assert image.get_attribute("src") is None

    await on_the_page(chrome, scene, bundle, without)
    await on_the_page(chrome, scene, bundle, with_it, allow_reconstruction=True)


async def test_the_browser_runs_no_script_but_the_pages_own(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    def steps(_: Running) -> None:
        with pytest.raises(JavascriptException, match="TrustedHTML"):
            chrome.execute_script("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
        with pytest.raises(JavascriptException, match="TrustedScript"):
            chrome.execute_script("document.body.setAttribute('onclick', 'window.ran = 1')")
        chrome.execute_script(
            "const image = document.createElement('img');"
            "image.src = 'http://127.0.0.1:9/';"
            "document.body.append(image)"
        )
        refused = [entry["message"] for entry in chrome.get_log("browser")]
        assert refused
        assert all("Security Policy" in message or "Trusted" in message for message in refused)

    await on_the_page(chrome, scene, bundle, steps)


async def test_axe_finds_nothing_that_keeps_people_out_in_light_and_dark(
    chrome: Chrome, scene: Scene, bundle: Bundle
) -> None:
    axe = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")

    def steps(_: Running) -> None:
        for scheme in ("light", "dark"):
            emulate(chrome, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            chrome.execute_script(axe)
            found = chrome.execute_async_script("axe.run().then(arguments[0])")
            assert found["passes"]
            wrong = [
                (item["id"], [node["html"] for node in item["nodes"]])
                for item in found["violations"]
            ]
            assert wrong == [], scheme
        emulate(chrome)

    await on_the_page(chrome, scene, bundle, steps, allow_reconstruction=True)


async def test_it_follows_light_and_dark_and_pictures_of_both_can_be_taken(
    chrome: Chrome, scene: Scene, bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path

    def steps(_: Running) -> None:
        if SCREENSHOTS:
            time.sleep(45)  # something to see
        grounds = {}
        for scheme in ("light", "dark"):
            emulate(chrome, prefers_color_scheme=scheme)
            time.sleep(1)
            file = folder / f"live-page-{scheme}.png"
            assert chrome.save_screenshot(str(file))
            grounds[scheme] = float(cv2.imread(str(file))[:, :8].mean())
        emulate(chrome)
        assert grounds["light"] > 200
        assert grounds["dark"] < 60

    await on_the_page(chrome, scene, bundle, steps)
