"""The usage page as a person sees it: what is on it, and what can be done there."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urljoin, urlsplit

from playwright.sync_api import FrameLocator, Page

from merchant_usage.orchestration.names import PAGE_NAME, PAGE_PATH
from tests.people import PASSWORD

#: What shows a table to be read by programs is no page.
NO_PAGE = (".csv",)


def shape(address: str) -> tuple[str, ...]:
    """What kind of view an address shows: its last part, and the names of what it asks for."""
    parts = urlsplit(address)
    return (parts.path.rsplit("/", 1)[-1], *sorted(name for name, _ in parse_qsl(parts.query)))


def links(page: Page) -> list[str]:
    """Where the links of a page lead, without places within it."""
    found = page.locator("a[href]").evaluate_all("links => links.map(link => link.href.split('#')[0])")
    return [str(address) for address in found]


def walk(page: Page, overview: str) -> Iterator[str]:
    """Open one view of each kind that can be reached by links from the overview; yield its address while it is open."""
    seen = {shape(overview)}
    waiting = [overview]
    while waiting:
        address = waiting.pop(0)
        page.goto(address)
        yield address
        for link in links(page):
            if urljoin(link, ".") == overview and shape(link) not in seen and not shape(link)[0].endswith(NO_PAGE):
                seen.add(shape(link))
                waiting.append(link)


class InAirflow:
    """Airflow's own UI, with the page in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    @property
    def usage(self) -> FrameLocator:
        """The page in its frame."""
        return self.page.frame_locator(f"iframe[title='{PAGE_NAME}']")

    def log_in(self, person: str) -> None:
        """By Airflow's own form."""
        self.page.goto(self.url)
        self.page.get_by_label("Username").fill(person)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.url}/")

    def open_by_navigation(self) -> FrameLocator:
        """From any page of Airflow's."""
        self.page.locator(f"a[href$='/plugin/{PAGE_PATH}']").click()
        return self.usage

    def open_by_dag(self, dag_id: str) -> FrameLocator:
        """On the DAG's own page."""
        self.page.goto(f"{self.url}/dags/{dag_id}")
        self.page.locator(f"a[href$='/plugin/{PAGE_PATH}-dag']").click()
        return self.usage

    def open_alone(self, address: str = "") -> None:
        """Without Airflow's UI around it."""
        self.page.goto(f"{self.url}/{PAGE_PATH}/{address}")
