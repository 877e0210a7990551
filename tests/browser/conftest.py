"""The usage page in a real Chromium, on a real Valkey and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page
from psycopg import Connection

from local.browser import Chromium, find_chromium
from local.driver import driven
from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.connections import prepare
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.app import create_app
from merchant_usage.sink import schema
from tests.browser.planted import Planted
from tests.browser.serving import served
from tests.browser.watched import Watch
from tests.support import NOW, Usage, settings

# Long enough for a busy machine; what is there sooner is seen sooner.
PATIENCE_MS = 30_000


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The program; without one these tests are left out."""
    found = find_chromium()
    assert found is not None
    return found


# Not of the session: while the driver runs, nothing in this thread can run an event loop of its own.
@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    """The browser."""
    with driven(chromium) as browser:
        yield browser


@pytest.fixture(scope="session")
def planted_url(valkey: Valkey, postgres: Postgres) -> str:
    """A database in which a month has happened."""
    url = postgres.create_database("planted")
    with psycopg.connect(url, autocommit=True) as conn, redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        schema.migrate(conn)
        Planted(Usage(client, prepare(conn), count(1))).plant()
    return url


def anna() -> Visitor:
    return Visitor("anna", may_act=False)


@pytest.fixture(scope="session")
def planted_site(planted_url: str) -> Iterator[str]:
    """The address of the page of that month."""

    @contextmanager
    def reading() -> Iterator[Connection]:
        with psycopg.connect(planted_url, autocommit=True) as conn:
            yield prepare(conn)

    with served(create_app(Doors(settings, reading, anna))) as address:
        yield address


@pytest.fixture
def site(planted_site: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, at the moment at which all was planted; other tests have the time that it is."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
    return planted_site


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of one person, who has been nowhere yet."""
    context = browser.new_context(locale="en-US", timezone_id="America/New_York")
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def watch(context: BrowserContext, site: str) -> Iterator[Watch]:
    """What the browser does beside showing the page. At the end that must be nothing."""
    watch = Watch(context, site)
    yield watch
    assert watch.problems == []


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Page:
    """An empty page, watched."""
    assert watch.problems == []
    return context.new_page()
