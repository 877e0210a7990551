"""A merchant: its days beside what is usual of them, how a day grew, what was corrected and what could not be taken."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import pytest
from fastapi.testclient import TestClient
from psycopg import Connection

from merchant_usage.page import merchant
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.text import escape
from tests.hostile import HOSTILE
from tests.page.seen import Seen, look
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw

pytestmark = pytest.mark.usefixtures("at_noon")
FIRST = TODAY - dt.timedelta(days=34)
DAY = dt.timedelta(days=1)


def store(conn: Connection, merchant_id: str, values: Mapping[dt.date, int], metric: str = "queries") -> None:
    """Some days of a metric."""
    conn.cursor().executemany(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, %s, %s)",
        [(merchant_id, date, metric, value) for date, value in values.items()],
    )


def months(value: int = 100, days: int = 63, **others: int) -> dict[dt.date, int]:
    """As much each day, today being the last of them; `_7=5`: five, seven days ago."""
    values = {TODAY - n * DAY: value for n in range(days)}
    return values | {TODAY - int(name[1:]) * DAY: other for name, other in others.items()}


def test_five_weeks_are_shown_each_day_with_its_story(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months())
    page = look(site, "merchant", merchant="acme")
    assert page.status == 200
    dates = [query["date"] for query in page.to("explain")]
    assert dates == [str(TODAY - n * DAY) for n in range(35)]
    assert all(query["merchant"] == "acme" and query["metric"] == "queries" for query in page.to("explain"))
    assert "times the usual" not in page.text.replace("twice the usual", "")


def test_a_spike_is_named_first_and_leads_to_its_story(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months(_4=320))
    store(usage.conn, "acme", months(1_000), "calls")
    page = look(site, "merchant", merchant="acme")
    spike = str(TODAY - 4 * DAY)
    assert f"{spike}, queries: ▲ 3.2 times the usual" in page.text
    assert page.to("explain")[0] == {"merchant": "acme", "date": spike, "metric": "queries"}
    # The largest metric is the one that is shown; the other is one click away.
    assert "calls by day" in page.text
    other = Seen(site.get("/" + page.link_with("merchant", metric="queries")))
    assert "queries by day" in other.text
    assert "▲ 3.2 times the usual" in other.text.split("leads to the story")[1]


def test_the_farthest_from_the_usual_is_named_first(usage: Usage, site: TestClient) -> None:
    """Of many only some, and a spike before the days that are missing."""
    store(usage.conn, "acme", months(_20=320))
    usage.conn.execute("DELETE FROM merchant_usage WHERE date BETWEEN %s AND %s", [TODAY - 6 * DAY, YESTERDAY])
    page = look(site, "merchant", merchant="acme")
    assert [query["date"] for query in page.to("explain")][:3] == [
        str(TODAY - 20 * DAY),
        str(YESTERDAY),
        str(YESTERDAY - DAY),
    ]
    assert "And 2 more days that are unlike the usual." in page.text


def test_the_week_after_a_spike_is_as_usual(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months(_11=10_000))
    page = look(site, "merchant", merchant="acme")
    assert page.text.count("times the usual") == 2, "the spike, above and in the table, and no day after it"


@pytest.mark.parametrize(("value", "told"), [(30, "▼ 0.3 times the usual"), (0, "▼ nothing, and 100 is usual")])
def test_a_drop_is_told(usage: Usage, site: TestClient, value: int, told: str) -> None:
    store(usage.conn, "acme", months(_4=value))
    assert told in look(site, "merchant", merchant="acme").text


def test_a_day_that_is_missing_is_a_drop(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months())
    usage.conn.execute("DELETE FROM merchant_usage WHERE date = %s", [YESTERDAY])
    assert f"{YESTERDAY}, queries: ▼ nothing, and 100 is usual" in look(site, "merchant", merchant="acme").text


def test_a_day_that_goes_on_is_compared_with_nothing(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months(_0=1))
    page = look(site, "merchant", merchant="acme")
    assert "▼ 0" not in page.text
    assert "the day goes on" in page.text


def test_a_late_correction_is_marked(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5, key("acme", metric_type="calls"): 7})
    usage.aggregate()
    usage.write({key("acme"): 25})
    usage.aggregate()
    page = look(site, "merchant", merchant="acme")
    assert "✎ Corrected after it was sealed: 1 time" in page.text
    assert "version 2 12 32 ✎ +20 late" in page.text
    assert "✎ corrected" in page.text.split("leads to the story")[1]
    assert "✓ sealed" in page.text


def test_what_could_not_be_taken_is_named(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5, key("acme", metric_type="calls"): "half", key("acme:b", metric_type="calls"): "x"})
    usage.client.set(b"usage:acme:" + str(YESTERDAY).encode() + b":\xff", "1")
    usage.aggregate()
    page = look(site, "merchant", merchant="acme")
    assert "Counters that could not be taken: 1" in page.text
    assert "! not_an_integer" in page.text
    assert {"merchant": "acme", "date": str(YESTERDAY), "metric": "calls"} in page.to("explain")


def test_a_merchant_that_has_nothing_but_letters_is_shown(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): "half"})
    usage.aggregate()
    page = look(site, "merchant", merchant="acme")
    assert page.status == 200
    assert f"Nothing is stored from {FIRST} to {TODAY}." in page.text
    assert "! not_an_integer" in page.text


def test_a_day_by_hour_with_a_correction(usage: Usage, site: TestClient) -> None:
    hours = [NOW - dt.timedelta(hours=3), NOW - dt.timedelta(hours=2), NOW]
    for counter, now in zip((5, 9, 20), hours, strict=True):
        usage.write({key("acme", TODAY): counter})
        usage.aggregate(TODAY, now=now)
    usage.write({key("acme", TODAY): 12})
    usage.aggregate(TODAY)
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "anna", "a test"), "usage", key=raw(key("acme", TODAY)))
    page = look(site, "merchant", merchant="acme", date=TODAY)
    assert f"queries by hour on {TODAY}" in page.text
    assert "-8 ✎ corrected" in page.text
    assert "✎: corrected, and not counted." in page.text
    assert {"polyline", "svg"} <= page.names


def test_the_newest_day_is_shown_by_hour_unless_one_is_chosen(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", {YESTERDAY: 5, YESTERDAY - DAY: 6})
    page = look(site, "merchant", merchant="acme")
    assert f"queries by hour on {YESTERDAY}" in page.text
    chosen = Seen(site.get("/" + page.link_with("merchant", date=str(YESTERDAY - DAY))))
    assert f"queries by hour on {YESTERDAY - DAY}" in chosen.text


def test_earlier_days_are_one_click_away(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months(days=100))
    page = look(site, "merchant", merchant="acme", **{"from": FIRST, "to": TODAY})
    earlier = page.link_with("merchant", to=str(FIRST - DAY))
    dates = [query["date"] for query in Seen(site.get(f"/{earlier}")).to("explain")]
    assert dates == [str(FIRST - n * DAY) for n in range(1, 36)]
    assert "Later" not in page.text
    assert look(site, "merchant", merchant="acme", **{"from": TODAY - 365 * DAY, "to": TODAY}).status == 200


def test_no_usage_of_these_days_leads_to_the_newest(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", {TODAY - 100 * DAY: 5})
    page = look(site, "merchant", merchant="acme")
    assert page.status == 200
    assert page.to("explain") == [{"merchant": "acme", "date": str(TODAY - 100 * DAY)}]


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_any_id_arrives_by_each_link_and_is_nothing_but_text(usage: Usage, site: TestClient, hostile: str) -> None:
    metric = hostile.replace(":", ";")[:60]
    store(usage.conn, hostile, months(_4=900), metric)
    page = look(site, "merchant", merchant=hostile)
    assert page.status == 200
    page.assert_harmless()
    assert " ".join(escape(hostile).split())[:30] in page.text
    for name in ("merchant", "merchant.csv", "explain"):
        assert page.to(name)
        assert {query["merchant"] for query in page.to(name)} == {hostile}
    assert {query["metric"] for query in page.to("explain")} == {metric}
    for link in (page.link_with("explain"), page.link_with("merchant", metric=metric)):
        next_page = Seen(site.get(f"/{link}"))
        assert next_page.status == 200
        next_page.assert_harmless()


REFUSED = [
    ({}, "merchant is missing; it takes a merchant's id."),
    ({"merchant": ""}, "merchant is missing"),
    ({"merchant": "a\0b"}, "holds a NUL"),
    ({"merchant": "x" * 1025}, "has 1025 bytes, more than 1024"),
    ({"merchant": "acme", "from": "yesterday"}, "from='yesterday' is not a date; it takes YYYY-MM-DD"),
    ({"merchant": "acme", "to": "2026-02-30"}, "to='2026-02-30' is not a date"),
    ({"merchant": "acme", "date": "20261120"}, "date='20261120' is not a date"),
    ({"merchant": "acme", "metric": "x" * 257}, "has 257 bytes, more than 256"),
    ({"merchant": "acme", "metric": "\0"}, "holds a NUL"),
    ({"merchant": "acme", "from": "2026-11-20", "to": "2026-11-19"}, "from=2026-11-20 is after to=2026-11-19."),
    ({"merchant": "acme", "from": "2025-11-19", "to": "2026-11-20"}, "are more than 366 days; choose fewer."),
    ({"merchant": "acme", "to": "0001-01-01"}, "to=0001-01-01 is not shown"),
    ({"merchant": "acme", "from": "9000-12-31"}, "is after to="),
]


@pytest.mark.parametrize(("query", "told"), REFUSED)
def test_what_cannot_be_asked_is_one_sentence(site: TestClient, query: dict[str, str], told: str) -> None:
    for name in ("merchant", "merchant.csv"):
        page = look(site, name, **query)
        assert page.status == 400
        assert told in page.text


def test_the_first_and_the_last_day_can_be_asked_for(usage: Usage, site: TestClient) -> None:
    for last in ("1970-01-01", "9000-12-31"):
        store(usage.conn, "acme", {dt.date.fromisoformat(last): 5})
        assert look(site, "merchant", merchant="acme", to=last).status == 200


def test_a_merchant_that_nobody_knows_is_not_found(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months())
    page = look(site, "merchant", merchant="<b>nobody</b>")
    assert page.status == 404
    assert "Nothing is stored of <b>nobody</b>." in page.text
    page.assert_harmless()


def test_too_much_to_add_up_is_refused_and_one_metric_is_not(
    usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merchant, "MOST_ROWS", 70)
    store(usage.conn, "acme", months())
    assert look(site, "merchant", merchant="acme").status == 200
    store(usage.conn, "acme", months(), "calls")
    page = look(site, "merchant", merchant="acme")
    assert page.status == 400
    assert "acme has more than 70 counters from" in page.text
    assert "choose fewer days, or one metric." in page.text
    assert look(site, "merchant", merchant="acme", metric="calls").status == 200
    assert look(site, "merchant", merchant="acme", **{"from": TODAY}).status == 200
