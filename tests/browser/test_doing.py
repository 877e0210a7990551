"""What is done from the page, in a real browser: it asks once, does it, and tells what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from psycopg import Connection

from merchant_usage.connections import prepare
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.app import create_app
from merchant_usage.source.shards import RedisClient
from tests.browser.serving import served
from tests.browser.watched import Watch
from tests.support import YESTERDAY, Usage, key, settings

ACME, BETA = key("acme"), key("beta")


class Work:
    """Real servers, and a list in place of Airflow."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.runs: list[dict[str, object]] = []

    @contextmanager
    def servers(self, seconds: int | None = None) -> Iterator[tuple[RedisClient, Connection]]:
        del seconds
        yield self._usage.client, self._usage.conn

    def aggregate(self, conf: dict[str, object], by: str) -> str:
        self.runs.append({**conf, "by": by})
        return "manual__1"


@pytest.fixture
def work(usage: Usage) -> Work:
    """Two counters that went backwards."""
    usage.write({ACME: 100, BETA: 200})
    usage.aggregate()
    usage.write({ACME: 5, BETA: 6})
    usage.aggregate()
    return Work(usage)


@pytest.fixture
def acting(context: BrowserContext, work: Work, database_url: str) -> Iterator[tuple[Page, str]]:
    """A browser's page for somebody who may act, and the address of the usage page."""

    @contextmanager
    def reading() -> Iterator[Connection]:
        with psycopg.connect(database_url, autocommit=True) as conn:
            yield prepare(conn)

    def anna() -> Visitor:
        return Visitor("anna", may_act=True)

    with served(create_app(Doors(settings, reading, anna, anna, work))) as url:
        watch = Watch(context, url)
        yield context.new_page(), url
        assert watch.problems == []


def test_a_counter_is_decided_by_the_keyboard_alone(acting: tuple[Page, str], usage: Usage) -> None:
    page, url = acting
    page.goto(f"{url}decisions?date={YESTERDAY}")
    row = page.get_by_role("row").filter(has_text="acme")
    row.get_by_role("button", name="Accept").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("What is billed is lowered to it")
    # Without a reason nothing is done.
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_be_visible()
    reason = dialog.get_by_label("Why")
    reason.fill("a correction")
    reason.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 counter was decided")
    expect(row.get_by_role("button", name="Keep")).to_be_disabled()
    assert usage.rows() == {ACME: 5, BETA: 200}
    assert usage.conn.execute("SELECT decided_by, reason FROM usage_decision").fetchall() == [("anna", "a correction")]


@pytest.mark.parametrize("by", ["Escape", "Cancel"])
def test_what_is_not_confirmed_is_not_done(acting: tuple[Page, str], usage: Usage, by: str) -> None:
    page, url = acting
    page.goto(f"{url}decisions?date={YESTERDAY}")
    before = usage.everything()
    page.get_by_role("row").filter(has_text="beta").get_by_role("button", name="Carry").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    if by == "Escape":
        page.keyboard.press("Escape")
    else:
        dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("status")).to_be_empty()
    assert usage.everything() == before


def test_a_date_is_compared_and_aggregated_again(acting: tuple[Page, str], work: Work) -> None:
    page, url = acting
    page.goto(f"{url}date?date={YESTERDAY}")
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_role("status")).to_contain_text(f"{YESTERDAY}: mismatch")
    expect(page.get_by_role("status").get_by_role("listitem")).to_have_count(2)
    page.get_by_label("only this merchant").fill("a:b %*")
    page.get_by_role("button", name="Aggregate again").click()
    page.get_by_role("dialog").get_by_role("button", name="Do it").click()
    expect(page.get_by_role("status")).to_contain_text("A run was started")
    day = str(YESTERDAY)
    assert work.runs == [{"from_date": day, "to_date": day, "merchant_ids": ["a:b %*"], "by": "anna"}]
