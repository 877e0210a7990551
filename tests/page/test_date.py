"""The page of a date, on real servers: who read it, which merchants matter, what was sealed and decided."""

from __future__ import annotations

import datetime as dt
import html
import re
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from fastapi.testclient import TestClient

from merchant_usage.page import changes, date
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.app import create_app
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.hostile import HOSTILE
from tests.support import NOW, TODAY, TOMORROW, YESTERDAY, Usage, key, raw

WEEK = dt.timedelta(weeks=1)
LATER = NOW + dt.timedelta(days=1)


def page(site: TestClient, day: dt.date = YESTERDAY, **more: str) -> str:
    answer = site.get("/date", params={"date": str(day), **more})
    assert answer.status_code == 200, answer.text
    return answer.text


def rows(text: str, table: str) -> list[list[str]]:
    """The cells of a table, as people read them."""
    found = re.search(rf'<table id="{table}">.*?</table>', text, re.DOTALL)
    if not found:
        return []
    body = found[0][found[0].index("<tbody>") :]
    cells = (re.findall("<t[hd].*?</t[hd]>", row, re.DOTALL) for row in body.split("<tr>")[1:])
    return [[" ".join(html.unescape(re.sub("<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]


def figures(text: str) -> dict[str, str]:
    """The facts of a page."""
    found = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", text)
    return {name: re.sub("<[^>]+>", "", value) for name, value in found}


def of_week_before(usage: Usage, totals: dict[str, int]) -> None:
    """What merchants used a week before, verified and sealed."""
    old = YESTERDAY - WEEK
    usage.write({key(merchant, old): total for merchant, total in totals.items()})
    usage.aggregate(old, now=NOW - WEEK)


def test_a_verified_date_shows_its_run_and_its_seal(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5, key("bob"): 7})
    usage.aggregate(run_id="first")
    usage.aggregate(run_id="second")
    text = page(site)
    assert figures(text) | {"Began": ""} == {
        "Began": "",
        "Redis": "12",
        "PostgreSQL": "12",
        "Merchants": "2",
        "New": "0",
        "Raised": "0",
        "Unchanged": "2",
        "Dead letters": "0",
        "Went backwards": "0",
    }
    assert [row[-2] for row in rows(text, "runstable")] == ["second", "first"]
    ((version, _, reason, counters, total, signed, _, run_id),) = rows(text, "sealstable")
    assert (version, reason, counters, total, signed, run_id) == ("1", "first", "2", "12", "no", "first")
    assert rows(text, "changes") == [
        ["bob", "7", "-", "+7", "", "explained : bob"],
        ["acme", "5", "-", "+5", "", "explained : acme"],
    ]


def test_a_date_without_any_run_says_so(site: TestClient) -> None:
    text = page(site)
    assert "No run has aggregated this date." in text
    assert "It has no seal" in text
    assert "nobody knows its largest merchants" in text


def test_merchants_come_by_how_much_they_differ_from_the_week_before(usage: Usage, site: TestClient) -> None:
    of_week_before(usage, {"steady": 1000, "spike": 10, "gone": 300})
    usage.write({key("steady"): 1001, key("spike"): 900, key("new"): 50})
    usage.aggregate()
    assert [row[:4] for row in rows(page(site), "changes")] == [
        ["spike", "900", "10", "+890"],
        ["gone", "-", "300", "-300"],
        ["new", "50", "-", "+50"],
        ["steady", "1,001", "1,000", "+1"],
    ]


def test_what_is_not_compared_differs_by_no_more_than_is_said(
    usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LARGEST", 3)
    monkeypatch.setattr(changes, "SHOWN", 2)
    before = {f"m{n:02}": 100 * n for n in range(1, 20)}
    now = {merchant: total + (950 if merchant == "m02" else 7) for merchant, total in before.items()}
    of_week_before(usage, before)
    usage.write({key(merchant): total for merchant, total in now.items()})
    usage.aggregate()
    text = page(site)
    shown = {row[0] for row in rows(text, "changes")}
    said = re.search(r"usage differs by more than ([0-9,]+)", text)
    assert said
    most = max(abs(now[merchant] - before[merchant]) for merchant in now if merchant not in shown)
    assert most <= int(said[1].replace(",", ""))


def test_a_date_that_is_not_sealed_compares_merchants_of_one_that_is(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 3, key("new", TODAY): 99})
    usage.aggregate(YESTERDAY, TODAY)
    text = page(site, TODAY)
    assert [row[:4] for row in rows(text, "changes")] == [["acme", "3", "-", "+3"]]
    assert f"the largest on {YESTERDAY}" in text
    assert "No other merchant" not in text


def test_a_regression_is_named_first_with_both_numbers(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 50, key("bob"): 7})
    usage.aggregate()
    usage.write({key("bob"): 3})
    usage.aggregate()
    text = page(site)
    assert "✗</span> mismatch" in text
    assert [row[:4] for row in rows(text, "waitingtable")] == [["bob", "queries", "3", "7"]]
    assert rows(text, "changes")[0] == ["bob", "7", "-", "+7", "went backwards", "explained : bob"]
    assert '<a href="explain?merchant=bob&amp;date=2026-11-23">' in text


def test_decisions_and_corrections_are_told_with_names(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 50, key("bob"): 7})
    usage.aggregate()
    usage.write({key("bob"): 3})
    usage.aggregate()
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "anna", "counted <twice>"), "usage", key=raw(key("bob")))
    usage.aggregate(now=LATER)
    text = page(site)
    ((_, decision, of, by, because, before, after),) = rows(text, "decisionstable")
    assert (decision, of, by, because, before, after) == (
        "accept",
        f"usage:bob:{YESTERDAY}:queries",
        "anna",
        "counted <twice>",
        "7",
        "3",
    )
    assert rows(text, "correctionstable") == [["bob", "2", "7", "3", "-4"]]
    assert [row[0] for row in rows(text, "sealstable")] == ["2", "1"]
    assert rows(text, "changes")[0][4] == "corrected"
    assert rows(text, "waitingtable") == []


def test_runs_and_attempts_come_a_page_at_a_time(
    usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(date, "RUNS", 3)
    hostile = "a/b?c#d&e <f> \u202e"
    for number in range(7):
        usage.aggregate(run_id=f"run {number}" if number % 2 else hostile, now=NOW + dt.timedelta(minutes=number))
    seen: list[tuple[str, str]] = []
    place: str | None = f"date?date={YESTERDAY}"
    while place:
        text = site.get(f"/{place}").text
        seen += [(row[0], row[-2]) for row in rows(text, "runstable")]
        found = re.search(r'<a href="([^"#]*)#runs" rel="next"', text)
        place = html.unescape(found[1]) if found else None
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)
    named = [run for _, run in seen]
    assert named[0] == "a/b?c#d&e <f> \\u202e , attempt 4"
    assert named[1] == "run 5"


def test_runs_link_to_where_they_are_shown(usage: Usage, doors: Doors) -> None:
    usage.aggregate(run_id="a/../b?c")
    site = TestClient(create_app(replace(doors, run_address="../runs/{run_id}")))
    assert '<a href="../runs/a%2F..%2Fb%3Fc" target="_top">' in page(site)


@pytest.mark.parametrize("merchant_id", HOSTILE)
def test_hostile_ids_are_nothing_but_text(usage: Usage, site: TestClient, merchant_id: str) -> None:
    of_week_before(usage, {merchant_id: 9, "acme": 3})
    usage.write({key("acme"): 5, key(merchant_id): 7, key(merchant_id, metric_type="bad"): "no number"})
    usage.aggregate()
    usage.write({key(merchant_id): 2})
    usage.aggregate()
    text = page(site)
    for bad in ("<script>alert", "<img src=x", "\x1b", "\u202e", 'style="background', "<b>"):
        assert bad not in text
    places = {html.unescape(place) for place in re.findall(r'<a href="([^"]*)"', text)}
    assert all(
        re.match(r"(\./|merchants|merchant\?|date\?|date\.csv\?|decisions|explain\?)", place) for place in places
    )
    merchants = [parse_qs(place.partition("?")[2])["merchant"] for place in places if place.startswith("merchant?")]
    assert sorted(merchants) == sorted([[merchant_id], ["acme"]])


def test_what_cannot_be_asked_is_a_sentence(site: TestClient) -> None:
    good = "date=2026-11-20"
    more = (f"{good}&after_letter=x", f"{good}&after_run=r&after_attempt=0", f"{good}&after_waiting=-1")
    for query in ("", "date=", "date=2026-11-31", "date=x'--", *more):
        answer = site.get(f"/date?{query}")
        assert answer.status_code == 400, query
        assert "it takes" in answer.text


def test_a_day_to_come_is_a_page_too(site: TestClient) -> None:
    assert "The day after" not in page(site, TOMORROW)
    assert "The day after" in page(site, YESTERDAY)
    for far, code in (("1970-01-01", 200), ("9000-12-31", 200), ("0001-01-01", 400), ("9999-12-31", 400)):
        assert site.get(f"/date?date={far}").status_code == code


def test_an_unknown_run_to_begin_behind_shows_none(usage: Usage, site: TestClient) -> None:
    usage.aggregate()
    assert rows(page(site, after_run="no such\x00run"), "runstable") == []


def test_who_may_not_act_sees_no_buttons(usage: Usage, doors: Doors) -> None:
    usage.aggregate()
    site = TestClient(create_app(replace(doors, visitor=lambda: Visitor("vera", may_act=False))))
    assert "<form" not in page(site).partition("<main")[2]
