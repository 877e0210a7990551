"""Whoever looks at the overview in the morning is three clicks at most from why something is as it is."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.planted import DECIDED_BY, DECISION, REASON, REGRESSION, SPIKE, SPIKED


class Way:
    """From the overview on, by clicks that are counted."""

    def __init__(self, page: Page, overview: str) -> None:
        self.page, self.clicks = page, 0
        page.goto(overview)

    def click(self, link: Locator) -> None:
        link.click()
        self.clicks += 1

    def choose_date(self, date: object) -> None:
        """In the calendar."""
        self.click(self.page.get_by_role("table", name="Dates").get_by_role("link", name=f"{date}: "))
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(str(date))

    def explain(self, merchant: str) -> None:
        """From a date, the number of a merchant."""
        row = self.page.get_by_role("table", name="What merchants used").get_by_role("row")
        self.click(row.filter(has_text=merchant).get_by_role("link", name="explained"))
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(f"Why {merchant} has this number")


@pytest.fixture
def way(page: Page, site: str) -> Way:
    return Way(page, site)


def test_a_counter_that_went_backwards(way: Way) -> None:
    notice = way.page.get_by_role("listitem").filter(has_text="Counters went backwards and wait for a decision")
    way.click(notice.get_by_role("link"))
    way.explain(REGRESSION.merchant_id)
    expect(way.page.get_by_role("main")).to_contain_text("counter_regressed: Redis has 5, PostgreSQL has 1,023")
    assert way.clicks <= 3


def test_a_spike(way: Way) -> None:
    way.choose_date(SPIKE.date)
    first = way.page.get_by_role("table", name="What merchants used").get_by_role("row").nth(1)
    expect(first).to_contain_text(SPIKE.merchant_id)
    way.explain(SPIKE.merchant_id)
    stored = way.page.get_by_role("row").filter(has_text=SPIKE.metric_type).first
    expect(stored).to_contain_text(f"{SPIKED:,}")
    assert way.clicks <= 3


def test_the_overview_marks_the_day_of_a_spike(page: Page, site: str) -> None:
    page.goto(site)
    days = page.get_by_role("table", name="Dates").get_by_role("link").filter(has_text="▲")
    expect(days).to_have_count(1)
    expect(days).to_contain_text(str(SPIKE.date))


def test_a_decision_with_who_and_why(way: Way) -> None:
    way.choose_date(DECISION.date)
    way.explain(DECISION.merchant_id)
    main = way.page.get_by_role("main")
    expect(main).to_contain_text(f"carry: {REASON}")
    expect(main).to_contain_text(DECIDED_BY)
    assert way.clicks <= 3
