"""The search: what is asked for is found as it is written, whatever characters it holds, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import Connection

from local.servers import Postgres
from merchant_usage.connections import prepare
from merchant_usage.page import merchants
from merchant_usage.page.access import Doors
from merchant_usage.page.app import create_app
from merchant_usage.sink import schema
from merchant_usage.text import escape
from tests.hostile import HOSTILE
from tests.integration.test_collations import make
from tests.page.conftest import anna
from tests.page.seen import Seen, look
from tests.support import YESTERDAY, Usage, settings

ODD = ("a%b", "a_b", "axb", "a b", "a\\b", "A%b", "\u05d0\u05d1", "a'b", 'a"b', "a:b")


def store(conn: Connection, merchant_ids: Iterable[str]) -> None:
    """Some usage of each of them."""
    conn.cursor().executemany(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, 'queries', 1)",
        [(merchant_id, YESTERDAY) for merchant_id in merchant_ids],
    )


def ids(page: Seen) -> list[str]:
    """The merchants that a page leads to, in their order."""
    return [query["merchant"] for query in page.to("merchant")]


def all_pages(site: TestClient, begins: str) -> list[list[str]]:
    """The merchants of each page, by the links from one to the next."""
    found = []
    page = look(site, "merchants", begins=begins)
    while True:
        assert page.status == 200
        found.append(ids(page))
        link = next((each for each in page.links if "after=" in each), "")
        if not link:
            return found
        page = Seen(site.get(f"/{link}"))


def test_thousands_are_paged_in_the_order_of_their_ids(usage: Usage, site: TestClient) -> None:
    wanted = [f"m{n:04}" for n in range(1, 121)]
    store(usage.conn, [*wanted, "l", "n", "M0001"])
    pages = all_pages(site, "m")
    assert [len(page) for page in pages] == [50, 50, 20]
    assert [merchant for page in pages for merchant in page] == wanted
    assert [len(page) for page in all_pages(site, "")] == [50, 50, 23]


def test_a_full_last_page_leads_nowhere(usage: Usage, site: TestClient) -> None:
    store(usage.conn, [f"m{n:04}" for n in range(50)])
    assert [len(page) for page in all_pages(site, "m")] == [50]


def test_later_pages_lead_back_to_the_first(usage: Usage, site: TestClient) -> None:
    store(usage.conn, [f"m&{n:04}" for n in range(60)])
    page = Seen(site.get("/" + look(site, "merchants", begins="m&").link_with("merchants", begins="m&")))
    assert {"begins": "m&"} in page.to("merchants")


def test_the_whole_id_comes_first(usage: Usage, site: TestClient) -> None:
    store(usage.conn, ["acme", "acme1", "acme 2", "acm"])
    page = look(site, "merchants", begins="acme")
    assert ids(page) == ["acme", "acme 2", "acme1"]
    assert page.text.count("exactly this") == 1
    assert ids(look(site, "merchants", begins="acme1")) == ["acme1"]


@pytest.mark.parametrize("begins", [odd[:2] for odd in ODD])
def test_a_text_is_taken_as_it_is(usage: Usage, site: TestClient, begins: str) -> None:
    store(usage.conn, ODD)
    assert sorted(ids(look(site, "merchants", begins=begins))) == sorted(odd for odd in ODD if odd.startswith(begins))


@pytest.mark.parametrize("merchant", HOSTILE, ids=ascii)
def test_any_id_is_found_and_is_nothing_but_text(usage: Usage, site: TestClient, merchant: str) -> None:
    store(usage.conn, ["other", merchant])
    for begins in (merchant, merchant[: len(merchant) // 2]):
        page = look(site, "merchants", begins=begins)
        assert merchant in ids(page)
        page.assert_harmless()
        assert " ".join(escape(begins).split())[:30] in page.text


def test_nothing_that_begins_so_is_said(usage: Usage, site: TestClient) -> None:
    assert "No merchant has any usage stored." in look(site, "merchants").text
    store(usage.conn, ["acme"])
    assert "No merchant begins so." in look(site, "merchants", begins="x").text
    assert "No other merchant begins so." in look(site, "merchants", begins="a", after="b").text


@pytest.mark.parametrize("name", ["begins", "after"])
@pytest.mark.parametrize("text", ["a\0b", "x" * 1025, "\u20ac" * 400])
def test_what_no_id_can_begin_with_is_refused(site: TestClient, name: str, text: str) -> None:
    page = look(site, "merchants", **{name: text})
    assert page.status == 400
    assert f"{name}=" in page.text


def test_an_address_that_was_made_up_starts_where_ids_begin_so(usage: Usage, site: TestClient) -> None:
    store(usage.conn, ["a", "m1", "m2", "z"])
    assert ids(look(site, "merchants", begins="m", after="b")) == ["m1", "m2"]
    assert ids(look(site, "merchants", begins="m", after="x")) == []


@pytest.fixture
def in_another_order(postgres15: Postgres) -> Iterator[Connection]:
    """A table of the application whose ids stand as a language sorts them."""
    with psycopg.connect(postgres15.url_of("postgres"), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS page_collations WITH (FORCE)")
        admin.execute("CREATE DATABASE page_collations TEMPLATE template0")
    with psycopg.connect(postgres15.url_of("page_collations"), autocommit=True) as conn:
        make(conn, "und-x-icu", "und-x-icu")
        schema.migrate(conn)
        yield prepare(conn)


def test_ids_in_the_order_of_a_language_are_all_found(
    in_another_order: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that begin alike do not stand together there, so that all are passed, so many at a time."""
    monkeypatch.setattr(merchants, "LOOKS", 7)
    monkeypatch.setattr(merchants, "PAGE", 3)
    names = [*ODD, "a", "ab", "a-b", "aa", "\u00e4b", "a\u0308b", "B", "b", "Ab", "-a", "z"]
    store(in_another_order, names)

    @contextmanager
    def reading() -> Iterator[Connection]:
        yield in_another_order

    site = TestClient(create_app(Doors(settings, reading, anna)))
    for begins in ("", "a", "a ", "A", "\u00e4", "z", "nobody"):
        pages = all_pages(site, begins)
        found = [merchant for page in pages for merchant in page]
        assert sorted(found) == sorted(name for name in names if name.startswith(begins))
        assert all(len(page) <= 4 for page in pages)
        if begins in names:
            assert found[0] == begins
    assert "7 merchants were looked at so far" in look(site, "merchants", begins="z").text
