"""A real browser for tests of pages, and what keeps people out of them."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1200,1600",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


def started() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        if os.environ.get("RESNET_REF_NEEDS_BROWSER"):
            pytest.fail("chromium and chromedriver are wanted here, and are missing")
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(180)
    yield driver
    driver.quit()


def problems(browser: Any) -> list[str]:
    """What axe finds that keeps people out."""
    from axe_core_python.selenium import Axe

    # Describing all the elements that pass takes three quarters of the time.
    found = Axe().run(browser, options={"resultTypes": ["violations"]})["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]
