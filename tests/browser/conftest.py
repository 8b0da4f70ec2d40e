"""A real browser without a screen, as Debian packages it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.missing import missing

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
except ModuleNotFoundError:
    missing("needs selenium: `make test-page` installs it")
if not (CHROMIUM and DRIVER):
    missing("needs chromium and chromium-driver: `make test-page` installs them")

WIDTH, HEIGHT = 1400, 1000
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-proxy-server",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Chrome:
    """The browser, as wide as usual and in daylight."""
    look(chromium, WIDTH)
    chromium.get_log("browser")  # of the test before
    return chromium


def look(browser: Chrome, width: int, *, dark: bool = False) -> None:
    """Look at the page so wide, and at night."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
