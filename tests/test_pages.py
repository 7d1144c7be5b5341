"""The pages in a real browser: complete by themselves, and usable by keyboard, by screen reader and in the dark."""

from pathlib import Path
from typing import Any

import pytest
from browsing import problems
from conftest import RECORDING, Run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def pages(run: Run, folder: Path, digit_files: list[Path]) -> dict[str, str]:
    """The address of each kind of page; made by the command line, once."""
    value = ("--end-point", "resnet_v1_50/block3/unit_2/bottleneck_v1/conv2", "--at", 0, 1, 5)
    commands: dict[str, tuple[Any, ...]] = {
        "agrees": ("verify", "digits", RECORDING),
        "departs": ("verify", "digits", RECORDING, "--training"),
        "trace": ("trace", digit_files[3], *value),
        "profile": ("trace", digit_files[3], "--profile", "--runs", 2),
    }
    for name, command in commands.items():
        if not (folder / f"{name}.html").exists():
            assert run(*command, "--html", folder / f"{name}.html")[0] == (1 if name == "departs" else 0)
    return {name: (folder / f"{name}.html").as_uri() for name in commands}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["agrees", "departs", "trace", "profile"])
def test_a_page_keeps_nobody_out_and_needs_nothing(browser: Any, pages: dict[str, str], name: str, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(pages[name])
    assert problems(browser) == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [one for one in loaded if not one.startswith("data:")] == []
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.get_log("browser") == []
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_verification_page_says_what_the_terminal_says(browser: Any, pages: dict[str, str]) -> None:
    browser.get(pages["agrees"])
    assert "agrees with slim" in browser.find_element("class name", "verdict").text
    assert len(browser.find_elements("css selector", ".scroll tbody tr")) == 77
    figures = browser.find_elements("css selector", "figure svg[role=img]")
    assert len(figures) == 3
    for one in figures:
        box = one.rect
        assert box["width"] > 300
        assert box["height"] > 100
        assert one.accessible_name
    browser.get(pages["departs"])
    assert "departs from slim, first at resnet_v1_50/conv1" in browser.find_element("class name", "verdict").text
    assert "batch norm in inference mode" in browser.find_element("css selector", "main ol li").text


def test_the_keyboard_leads_from_the_value_to_a_pixel_and_back(browser: Any, pages: dict[str, str]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["trace"])

    def shown() -> Any:
        # Asked at once: there are hundreds of sections.
        script = "return [...document.querySelectorAll('section.node')].filter(s => s.offsetParent !== null)"
        visible = browser.execute_script(script)
        assert len(visible) == 1
        return visible[0]

    root = shown().find_element("tag name", "h2").text
    assert root.startswith("resnet_v1_50/block3/unit_2/bottleneck_v1/conv2 at row 0, column 1, channel 5")
    for _ in range(60):
        links = shown().find_elements("css selector", "tbody th a")
        if not links:
            break
        links[0].send_keys(Keys.ENTER)
    heading = shown().find_element("tag name", "h2").text
    assert heading.startswith("images at row ")
    assert "The pixel." in shown().text
    shown().find_element("link text", "To the value that was asked for").send_keys(Keys.ENTER)
    assert shown().find_element("tag name", "h2").text == root
    browser.back()
    assert shown().find_element("tag name", "h2").text == heading


def test_every_link_of_a_trace_leads_somewhere(browser: Any, pages: dict[str, str]) -> None:
    browser.get(pages["trace"])
    broken = browser.execute_script(
        "return [...document.querySelectorAll('a')].filter(a => !document.getElementById(a.hash.slice(1))).length"
    )
    assert broken == 0
