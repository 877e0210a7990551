"""Each view of the page, whatever it shows: what holds for all of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from merchant_usage.page.app import STATIC
from tests.browser.pages import links, walk
from tests.browser.serving import PATH, behind_a_path
from tests.browser.watched import Watch, is_wider_than_the_screen

SERIOUS = {"serious", "critical"}


def test_each_view_loads_without_an_error_and_asks_nobody_else(page: Page, watch: Watch, site: str) -> None:
    for address in walk(page, site):
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert watch.problems == [], address
    asked = {urlsplit(address).path for address in watch.requests}
    assert {f"/static/{name}" for name in STATIC} >= {path for path in asked if "static" in path} > set()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_view_is_wider_than_the_screen(page: Page, site: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert [address for address in walk(page, site) if is_wider_than_the_screen(page)] == []


def findings(page: Page) -> list[str]:
    """What axe finds that keeps people from using the page."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_keeps_people_from_using_a_view(page: Page, site: str, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert {address: found for address in walk(page, site) if (found := findings(page))} == {}


def test_dark_is_dark(page: Page, site: str) -> None:
    page.goto(site)
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_without_scripts_everything_can_be_read(browser: Browser, site: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(site)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.close()


def test_behind_a_proxy_all_lies_below_its_path(browser: Browser, site: str) -> None:
    with behind_a_path(site) as shown_at:
        context = browser.new_context()
        watch = Watch(context, shown_at)
        page = context.new_page()
        for _ in walk(page, shown_at):
            assert [link for link in links(page) if not link.startswith(shown_at)] == []
        page.goto(shown_at)
        page.get_by_label("Merchant").fill("acme")
        page.get_by_role("button", name="Find").click()
        assert page.url.startswith(f"{shown_at}merchants?")
        assert [url for url in watch.requests if not urlsplit(url).path.startswith(f"{PATH}/")] == []
        assert watch.problems == []
        context.close()
