"""A real Chromium without a window, with a profile of its own that is gone afterwards."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",  # which is small in containers
)
PATIENCE_S = 120


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Yields a browser that keeps its console's messages; skips where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium: on Debian apt install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for switch in (*_SWITCHES, f"--user-data-dir={profile}", "--window-size=1200,1500"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(driver))
    browser.set_script_timeout(PATIENCE_S)
    try:
        yield browser
    finally:
        browser.quit()


def emulate(browser: Chrome, **features: str) -> None:
    """What CSS is told: prefers_color_scheme="dark" and the like."""
    told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})
